"use strict";

// Signals on one time axis: a canvas each, a ruler, marks of labels and choruses, one playhead over all.
{
  const { element, time } = beamsplitter.text;
  const LEAST_VIEW_S = 0.2;
  const MOST_CHUNKS_DRAWN = 4;
  const SHARE_OF_WAVEFORM = 0.38;
  const LEAST_SCALE = 6; // of 127: near silence is not blown up to the full height
  const DRAG_PIXELS = 5;
  const CHUNK_PEAKS_A_SECOND = 100;
  const MARK_ROWS = 4;
  const MOST_MARKS = 300;
  const RULER_STEPS_S = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400,
  ];
  const LEAST_TICK_PIXELS = 76;

  const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

  async function image(source) {
    if (!source) return null;
    const made = new Image();
    made.src = source;
    await made.decode();
    return made;
  }

  // A canvas' pixels follow its size on the page and the screen's density.
  function fitted(canvas) {
    const scale = globalThis.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return { drawing: canvas.getContext("2d"), width, height, scale };
  }

  const colour = (from, property) => getComputedStyle(from).getPropertyValue(property).trim();

  // `peaks` are pairs of least and greatest sample, `columnsPerSecond` of them, from `start_s` on.
  function drawWaveform(drawing, peaks, { start_s, columnsPerSecond, loudest }, view, area) {
    const secondsPerPixel = (view.end_s - view.start_s) / area.width;
    const middle = area.height / 2;
    const columns = peaks.length / 2;
    for (let x = Math.floor(area.from); x < area.to; x++) {
      const at = (view.start_s + x * secondsPerPixel - start_s) * columnsPerSecond;
      const first = clamp(Math.floor(at), 0, columns - 1);
      const last = clamp(Math.ceil(at + secondsPerPixel * columnsPerSecond) - 1, first, columns - 1);
      let least = 127;
      let most = -127;
      for (let column = first; column <= last; column++) {
        least = Math.min(least, peaks[2 * column]);
        most = Math.max(most, peaks[2 * column + 1]);
      }
      const top = middle - (most / loudest) * middle;
      const bottom = middle - (least / loudest) * middle;
      drawing.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  // Rows for spans that overlap, those of each kind apart: each goes into the first row that is free. What finds
  // none is left out.
  function rowsOf(spans) {
    const rows = [];
    const kinds = [...new Set(spans.map(({ kind }) => kind))];
    return kinds.flatMap((kind) => spans.filter((span) => span.kind === kind).sort((a, b) => a.start_s - b.start_s)).flatMap((span) => {
      let row = rows.findIndex(({ kind, end_s }) => kind === span.kind && end_s <= span.start_s + 1e-6);
      if (row < 0) row = rows.length;
      if (row >= MARK_ROWS) return [];
      rows[row] = { kind: span.kind, end_s: span.end_s };
      return [{ ...span, row }];
    });
  }

  // `lanes`: { id, label, controls (an element), peaks, picture }, of which the last two cover the recording.
  // `marks`: { start_s, end_s, text, kind, colour (0 to 5) }. Tells of "seek", "range" and "view".
  class Timeline extends EventTarget {
    #chunks;
    #frame = 0;
    #loading = 0;
    #pointers = new Map();
    #gesture = null;

    constructor({ duration_s, chunk_s, columns, lanes, marks, loadChunk }) {
      super();
      this.duration_s = duration_s;
      this.chunk_s = chunk_s;
      this.columnsPerSecond = columns / duration_s;
      this.view = { start_s: 0, end_s: duration_s };
      this.range = null;
      this.loadChunk = loadChunk;
      this.marks = rowsOf(marks);
      // More than are drawn at once, so that panning to and fro loads nothing.
      this.#chunks = new beamsplitter.Kept(2 * MOST_CHUNKS_DRAWN, (number) => this.#drawableChunk(number));
      this.#build(lanes);
      this.#listen();
      this.resizing = new ResizeObserver(() => this.draw());
      this.resizing.observe(this.element);
      this.darkness = matchMedia("(prefers-color-scheme: dark)");
      this.onDarkness = () => this.draw();
      this.darkness.addEventListener("change", this.onDarkness);
    }

    dispose() {
      this.resizing.disconnect();
      this.darkness.removeEventListener("change", this.onDarkness);
      cancelAnimationFrame(this.#frame);
      clearTimeout(this.#loading);
    }

    get length_s() {
      return this.view.end_s - this.view.start_s;
    }

    setView(start_s, end_s) {
      const length_s = clamp(end_s - start_s, Math.min(LEAST_VIEW_S, this.duration_s), this.duration_s);
      const from_s = clamp(start_s, 0, this.duration_s - length_s);
      this.view = { start_s: from_s, end_s: from_s + length_s };
      this.draw();
      this.setPosition(this.position_s);
      this.setRange(this.range);
      this.dispatchEvent(new Event("view"));
    }

    zoom(factor, around_s = this.view.start_s + this.length_s / 2) {
      const length_s = clamp(this.length_s / factor, LEAST_VIEW_S, this.duration_s);
      const share = (around_s - this.view.start_s) / this.length_s;
      this.setView(around_s - share * length_s, around_s + (1 - share) * length_s);
    }

    pan(seconds) {
      this.setView(this.view.start_s + seconds, this.view.end_s + seconds);
    }

    setPosition(position_s) {
      this.position_s = position_s;
      const share = (position_s - this.view.start_s) / this.length_s;
      this.playhead.hidden = share < 0 || share > 1;
      this.playhead.style.left = `${share * 100}%`;
    }

    setRange(range) {
      this.range = range;
      this.rangeBox.hidden = !range;
      if (!range) return;
      const left = clamp((range.start_s - this.view.start_s) / this.length_s, 0, 1);
      const right = clamp((range.end_s - this.view.start_s) / this.length_s, 0, 1);
      this.rangeBox.style.left = `${left * 100}%`;
      this.rangeBox.style.width = `${(right - left) * 100}%`;
    }

    // Once for however many changes there were since the last frame.
    draw() {
      this.#frame ||= requestAnimationFrame(() => {
        this.#frame = 0;
        this.#drawRuler();
        this.#placeMarks();
        for (const lane of this.lanes) if (!lane.canvas.hidden) this.#drawLane(lane);
        clearTimeout(this.#loading);
        this.#loading = setTimeout(() => this.#loadVisible(), 120);
      });
    }

    #build(lanes) {
      this.ruler = element("canvas", { class: "ruler", "aria-hidden": "true" });
      this.axis = element("div", {
        class: "axis surface", role: "slider", tabindex: "0", "aria-label": "Position in the recording",
        "aria-valuemin": "0", "aria-valuemax": this.duration_s.toFixed(1), "aria-valuenow": "0",
      }, this.ruler);
      const markRows = 1 + Math.max(-1, ...this.marks.map(({ row }) => row));
      // Hidden from screen readers: the same stands in lists below, with buttons.
      this.markBox = element("div", { class: "marks surface", "aria-hidden": "true" });
      this.markBox.style.setProperty("--rows", markRows);
      this.lanes = lanes.map((lane) => {
        const canvas = element("canvas", {
          class: "lane surface", role: "img", "aria-label": `Waveform and spectrogram of ${lane.label}`,
        });
        const peaks = lane.peaks ? beamsplitter.peaksOf(lane.peaks) : null;
        const shown = { ...lane, length_s: lane.length_s ?? this.duration_s, canvas, peaks, picture: null };
        image(lane.picture).then((picture) => {
          shown.picture = picture;
          this.draw();
        });
        return shown;
      });
      // One scale for all, so that their heights compare.
      this.loudest = this.lanes.reduce((most, { peaks }) => (peaks ?? []).reduce((a, b) => Math.max(a, Math.abs(b)), most), LEAST_SCALE);
      this.playhead = element("div", { class: "playhead" });
      this.rangeBox = element("div", { class: "range", hidden: true });
      this.overlay = element("div", { class: "overlay" }, this.rangeBox, this.playhead);
      const hasMarks = this.marks.length > 0;
      this.element = element("div", { class: "timeline" },
        element("div", { class: "corner" }), this.axis,
        hasMarks ? [element("div", { class: "corner" }), this.markBox] : [],
        this.lanes.map(({ controls, canvas }) => [controls, canvas]).flat(),
        this.overlay,
      );
      this.position_s = 0;
      this.showLanes(() => true);
    }

    showLanes(isShown) {
      for (const { id, canvas, controls } of this.lanes) canvas.hidden = controls.hidden = !isShown(id);
      this.draw();
    }

    #secondsAt(event) {
      const box = this.overlay.getBoundingClientRect();
      return this.view.start_s + clamp((event.clientX - box.left) / box.width, 0, 1) * this.length_s;
    }

    #listen() {
      const surfaces = [this.axis, this.markBox, ...this.lanes.map(({ canvas }) => canvas)];
      for (const surface of surfaces) {
        surface.addEventListener("pointerdown", (event) => this.#press(event, surface));
        surface.addEventListener("pointermove", (event) => this.#move(event));
        surface.addEventListener("pointerup", (event) => this.#release(event));
        surface.addEventListener("pointercancel", (event) => this.#cancel(event));
        surface.addEventListener("wheel", (event) => this.#turn(event), { passive: false });
      }
    }

    // A mouse or pen seeks by a click and draws a range by dragging; a finger seeks, pans, and two zoom.
    #press(event, surface) {
      if (event.button !== 0) return;
      surface.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      this.#gesture = {
        kind: "click", start_s: this.#secondsAt(event), x: event.clientX, y: event.clientY,
        view: this.view, mark: event.target.mark ?? null, fingers: this.#fingers(),
      };
    }

    #fingers() {
      const [first, second] = [...this.#pointers.values()];
      if (!second) return null;
      return { distance: Math.abs(first.clientX - second.clientX), middle: (first.clientX + second.clientX) / 2 };
    }

    #move(event) {
      if (!this.#gesture || !this.#pointers.has(event.pointerId)) return;
      this.#pointers.set(event.pointerId, event);
      const gesture = this.#gesture;
      const fingers = this.#fingers();
      if (fingers && gesture.fingers) {
        this.#pinch(gesture, fingers);
        return;
      }
      const moved = event.clientX - gesture.x;
      if (gesture.kind === "click" && Math.abs(moved) < DRAG_PIXELS) return;
      if (gesture.kind === "click") gesture.kind = event.pointerType === "touch" ? "pan" : "range";
      if (gesture.kind === "pan") {
        const seconds = (-moved / this.overlay.clientWidth) * (gesture.view.end_s - gesture.view.start_s);
        this.setView(gesture.view.start_s + seconds, gesture.view.end_s + seconds);
      } else if (gesture.kind === "range") {
        this.setRange(this.#rangeTo(event));
      }
    }

    #pinch(gesture, fingers) {
      gesture.kind = "pinch";
      const { start_s, end_s } = gesture.view;
      const box = this.overlay.getBoundingClientRect();
      const share = (x) => (x - box.left) / box.width;
      const factor = Math.max(fingers.distance, 8) / Math.max(gesture.fingers.distance, 8);
      const length_s = clamp((end_s - start_s) / factor, LEAST_VIEW_S, this.duration_s);
      const held_s = start_s + share(gesture.fingers.middle) * (end_s - start_s);
      const from_s = held_s - share(fingers.middle) * length_s;
      this.setView(from_s, from_s + length_s);
    }

    #rangeTo(event) {
      const other_s = this.#secondsAt(event);
      const { start_s } = this.#gesture;
      return { start_s: Math.min(start_s, other_s), end_s: Math.max(start_s, other_s) };
    }

    #release(event) {
      const gesture = this.#gesture;
      this.#pointers.delete(event.pointerId);
      if (!gesture) return;
      if (gesture.kind === "range") {
        this.#tell("range", this.#rangeTo(event));
      } else if (gesture.kind === "click") {
        if (gesture.mark) this.#tell("range", gesture.mark);
        else this.#tell("seek", gesture.start_s);
      }
      if (!this.#pointers.size) this.#gesture = null;
    }

    #cancel(event) {
      this.#pointers.delete(event.pointerId);
      this.#gesture = null;
    }

    #turn(event) {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(2 ** (-event.deltaY / 200), this.#secondsAt(event));
        return;
      }
      const sideways = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
      if (Math.abs(sideways) <= Math.abs(event.deltaY) && !event.shiftKey) return;
      event.preventDefault();
      this.pan((sideways / this.overlay.clientWidth) * this.length_s);
    }

    #tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    }

    #visibleChunks() {
      const first = Math.floor(this.view.start_s / this.chunk_s);
      const last = Math.min(Math.ceil(this.view.end_s / this.chunk_s), Math.ceil(this.duration_s / this.chunk_s));
      return Array.from({ length: Math.max(0, last - first) }, (_, index) => first + index);
    }

    // Whether the overview's columns are too coarse for this view, and few enough chunks are in it.
    get #isClose() {
      const { width } = this.ruler;
      return width / this.length_s > 1.2 * this.columnsPerSecond && this.#visibleChunks().length <= MOST_CHUNKS_DRAWN;
    }

    #loadVisible() {
      if (!this.loadChunk || !this.lanes.length || !this.#isClose) return;
      for (const number of this.#visibleChunks()) {
        const loading = this.#chunks.get(number);
        if (loading.isWatched) continue;
        loading.isWatched = true;
        loading.then(
          (chunk) => {
            loading.chunk = chunk;
            this.draw();
          },
          // The overview stays; what can't be loaded is told when it is played.
          () => {},
        );
      }
    }

    async #drawableChunk(number) {
      const stored = await this.loadChunk(number);
      const signals = new Map();
      for (const { id } of this.lanes) {
        const { peaks, picture } = stored.signals[id];
        signals.set(id, { peaks: beamsplitter.peaksOf(peaks), picture: await image(picture) });
      }
      return { signals };
    }

    #drawLane(lane) {
      const { drawing, width, height, scale } = fitted(lane.canvas);
      const wave = Math.round(height * SHARE_OF_WAVEFORM);
      drawing.fillStyle = colour(this.element, "--lane-back");
      drawing.fillRect(0, 0, width, height);
      drawing.fillStyle = colour(this.element, "--wave");
      const { loudest } = this;
      const whole = { start_s: 0, loudest, columnsPerSecond: lane.peaks ? lane.peaks.length / 2 / lane.length_s : 0 };
      const stretches = this.#isClose ? this.#stretches(lane, width) : [{ from: 0, to: width }];
      for (const { from, to, chunk, start_s, end_s } of stretches) {
        const peaks = chunk?.peaks ?? lane.peaks;
        const scaleOfPeaks = chunk ? { start_s, loudest, columnsPerSecond: CHUNK_PEAKS_A_SECOND } : whole;
        if (peaks) drawWaveform(drawing, peaks, scaleOfPeaks, this.view, { width, height: wave, from, to });
        const covered = chunk ? { start_s, end_s } : { start_s: 0, end_s: lane.length_s };
        this.#drawPicture(drawing, chunk?.picture ?? lane.picture, covered, { from, to, top: wave, width, height });
      }
      this.#drawFrequencies(drawing, lane.hertz, wave, height, scale);
    }

    // The parts of a lane by chunk, in pixels, each with what is there of it.
    #stretches(lane, width) {
      return this.#visibleChunks().map((number) => {
        const start_s = number * this.chunk_s;
        const end_s = Math.min(start_s + this.chunk_s, this.duration_s);
        const pixel = (seconds) => Math.round(clamp((seconds - this.view.start_s) / this.length_s, 0, 1) * width);
        const chunk = this.#chunks.values.get(number)?.chunk?.signals.get(lane.id);
        return { from: pixel(start_s), to: pixel(end_s), chunk, start_s, end_s };
      });
    }

    #drawPicture(drawing, picture, covered, { from, to, top, width, height }) {
      if (!picture || to <= from) return;
      const secondsPerPixel = this.length_s / width;
      const columnsPerSecond = picture.naturalWidth / (covered.end_s - covered.start_s);
      const column = (x) => (this.view.start_s + x * secondsPerPixel - covered.start_s) * columnsPerSecond;
      const left = clamp(column(from), 0, picture.naturalWidth);
      const right = clamp(column(to), left, picture.naturalWidth);
      const rows = picture.naturalHeight;
      drawing.drawImage(picture, left, 0, Math.max(right - left, 1e-3), rows, from, top, to - from, height - top);
    }

    #drawFrequencies(drawing, hertzRange, top, bottom, scale) {
      if (!hertzRange) return;
      const [lowest_hz, highest_hz] = hertzRange;
      drawing.font = `${10 * scale}px system-ui, sans-serif`;
      drawing.textBaseline = "middle";
      drawing.lineJoin = "round";
      for (const [hertz, text] of [[100, "100 Hz"], [1000, "1 kHz"], [10000, "10 kHz"]]) {
        if (hertz <= lowest_hz || hertz >= highest_hz) continue;
        const share = Math.log(hertz / lowest_hz) / Math.log(highest_hz / lowest_hz);
        const y = bottom - share * (bottom - top);
        drawing.strokeStyle = "#000c";
        drawing.lineWidth = 3 * scale;
        drawing.strokeText(text, 4 * scale, y);
        drawing.fillStyle = "#fff";
        drawing.fillText(text, 4 * scale, y);
      }
    }

    #drawRuler() {
      const { drawing, width, height, scale } = fitted(this.ruler);
      drawing.clearRect(0, 0, width, height);
      const least_s = (LEAST_TICK_PIXELS * scale * this.length_s) / width;
      const step_s = RULER_STEPS_S.find((step) => step >= least_s) ?? RULER_STEPS_S.at(-1);
      drawing.fillStyle = colour(this.element, "--muted");
      drawing.font = `${11 * scale}px system-ui, sans-serif`;
      drawing.textBaseline = "top";
      const decimals = step_s >= 1 ? 0 : step_s >= 0.1 ? 1 : 2;
      for (let tick = Math.ceil(this.view.start_s / step_s); tick * step_s <= this.view.end_s; tick++) {
        const x = ((tick * step_s - this.view.start_s) / this.length_s) * width;
        drawing.fillRect(Math.min(x, width - scale), height * 0.35, scale, height);
        const text = time(tick * step_s, decimals);
        if (x + drawing.measureText(text).width + 6 * scale < width) drawing.fillText(text, x + 4 * scale, 3 * scale);
      }
    }

    #placeMarks() {
      const shown = this.marks
        .filter(({ start_s, end_s }) => end_s > this.view.start_s && start_s < this.view.end_s)
        .slice(0, MOST_MARKS);
      this.markBox.replaceChildren(...shown.map((mark) => {
        const left = clamp((mark.start_s - this.view.start_s) / this.length_s, 0, 1);
        const right = clamp((mark.end_s - this.view.start_s) / this.length_s, 0, 1);
        const box = element("div", {
          class: `mark ${mark.kind} colour-${mark.colour}`, title: `${mark.text}: ${time(mark.start_s, 1)} to ${time(mark.end_s, 1)}`,
        }, mark.text);
        box.mark = { start_s: mark.start_s, end_s: mark.end_s };
        box.style.left = `${left * 100}%`;
        box.style.width = `max(3px, ${(right - left) * 100}%)`;
        box.style.setProperty("--row", mark.row);
        return box;
      }));
    }
  }

  Object.assign(beamsplitter, { Timeline });
}
