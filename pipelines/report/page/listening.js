"use strict";

// Where one listens: the transport, a timeline, and the controls of each signal. Of a recording, or of two runs.
{
  const { element, name, time, secondsOf, spokenTime, fixed, level } = beamsplitter.text;
  const LEAST_VOLUME_DB = -40; // and below it, silence
  const MOST_VOLUME_DB = 6;
  const METER_FLOOR_DB = -60;
  const STEP_S = 1;
  const LARGE_STEP_S = 10;

  const KEYS = [
    ["Space", "play or pause"],
    ["← →", "1 second back or on; with Shift 10"],
    ["Home, End", "to the beginning, to the end"],
    ["B", "switch between the mixture and the sum of stems"],
    ["1 … 9", "solo the first, second … signal"],
    ["0", "no solo"],
    ["[ ]", "begin or end the loop here"],
    ["L", "loop on or off"],
    ["+ −", "zoom in or out"],
    ["F", "the whole recording"],
  ];

  function button(label, onclick, attributes = {}) {
    return element("button", { type: "button", onclick, ...attributes }, label);
  }

  const press = (toggle, isOn) => toggle.setAttribute("aria-pressed", String(isOn));

  function volumeSlider(label, onChange) {
    const slider = element("input", {
      type: "range", class: "volume", min: LEAST_VOLUME_DB, max: MOST_VOLUME_DB, step: 1, value: 0, "aria-label": label,
    });
    const tell = () => {
      const decibels = Number(slider.value);
      const isSilent = decibels === LEAST_VOLUME_DB;
      slider.setAttribute("aria-valuetext", isSilent ? "silent" : `${fixed(decibels, 0)} decibels`);
      slider.title = isSilent ? "silent" : `${fixed(decibels, 0)} dB`;
      return isSilent ? -Infinity : decibels;
    };
    tell();
    slider.addEventListener("input", () => onChange(tell()));
    slider.addEventListener("dblclick", () => {
      slider.value = 0;
      onChange(tell());
    });
    return slider;
  }

  class Meter {
    constructor(label) {
      this.bar = element("span", { class: "bar" });
      this.element = element("span", {
        class: "meter", role: "meter", "aria-label": label, "aria-valuemin": METER_FLOOR_DB, "aria-valuemax": 0,
      }, this.bar);
      this.show(-Infinity);
    }

    show(decibels) {
      const shown = Math.min(0, Math.max(METER_FLOOR_DB, decibels));
      this.element.setAttribute("aria-valuenow", shown.toFixed(1));
      const text = decibels > METER_FLOOR_DB ? `${fixed(decibels)} decibels` : "silent";
      this.element.setAttribute("aria-valuetext", text);
      this.bar.style.width = `${(1 - shown / METER_FLOOR_DB) * 100}%`;
    }
  }

  // `signals`: { id, label, group, levels, peaks, picture, download, trackClass }; `groups`: Map of id to name.
  // `onMove(position_s)` is told where it stands when that is worth keeping.
  class ListeningRoom {
    #frame = 0;
    #spoken_s = -1;

    constructor({ player, report, signals, groups, marks, loadChunk, start_s, onMove, onFailure }) {
      this.player = player;
      this.onMove = onMove;
      this.groups = groups;
      this.range = null;
      this.meters = new Map();
      this.toggles = new Map();
      const lanes = signals.map((signal) => ({ ...signal, controls: this.#controls(signal) }));
      this.timeline = new beamsplitter.Timeline({ ...report, duration_s: player.duration_s, lanes, marks, loadChunk });
      this.element = element("section", { class: "room", "aria-label": "Player" },
        this.#transport(), this.timeline.element, this.#scrollBar(), this.#keys());
      this.#connect(onFailure);
      if (start_s) player.seek(start_s);
      this.#show();
      player.prepare();
    }

    dispose() {
      cancelAnimationFrame(this.#frame);
      document.removeEventListener("keydown", this.onKey);
      this.timeline.dispose();
      this.player.dispose();
    }

    // While one listens blindly only the mixture is shown, and keys of its own come first; null ends it.
    setBlind(blind) {
      this.blindKeys = blind?.keys ?? null;
      this.element.classList.toggle("blind", Boolean(blind));
      this.timeline.showLanes((id) => !blind || id === "mixture");
      this.player.setBlind(blind?.trims ?? null);
    }

    loopOver(range) {
      this.range = range;
      this.player.setLoop(range);
    }

    #controls(signal) {
      const { player } = this;
      const meter = new Meter(`Level of ${signal.label}`);
      this.meters.set(signal.id, meter);
      const of = (word) => `${word} ${signal.label}`;
      const solo = button("Solo", () => player.setSignal(signal.id, { isSolo: !player.signals.get(signal.id).isSolo }), {
        "aria-label": of("Solo"), class: "toggle",
      });
      const mute = button("Mute", () => player.setSignal(signal.id, { isMuted: !player.signals.get(signal.id).isMuted }), {
        "aria-label": of("Mute"), class: "toggle",
      });
      this.toggles.set(signal.id, { solo, mute });
      const volume = volumeSlider(of("Volume of"), (volume_db) => player.setSignal(signal.id, { volume_db }));
      const { rms_db, peak_db } = signal.levels ?? {};
      const levels = signal.levels
        ? element("span", { class: "levels", title: "RMS and peak, dB re full scale" },
          rms_db === null ? "silent" : `${level(rms_db)} dB, peak ${level(peak_db)}`)
        : null;
      return element("div", { class: "controls", role: "group", "aria-label": signal.label },
        element("div", { class: "heading" }, name(signal.label, { class: "signal" }), levels),
        element("div", { class: "knobs" }, solo, mute, volume),
        meter.element,
      );
    }

    #transport() {
      const { player, timeline } = this;
      this.playButton = button("", () => player.toggle(), { class: "play" });
      this.clock = element("output", { class: "clock", "aria-label": "Position", "aria-live": "off" });
      this.waiting = element("span", { class: "waiting", role: "status" });
      this.loopButton = button("Loop", () => this.#toggleLoop(), { class: "toggle" });
      this.loopInputs = ["start_s", "end_s"].map((end) => element("input", {
        class: "time", size: 9, inputmode: "decimal", autocomplete: "off", placeholder: "0:00.00",
        "aria-label": end === "start_s" ? "Loop from" : "Loop to", onchange: (event) => this.#enterLoop(end, event.target),
        oninput: (event) => event.target.setCustomValidity(""),
      }));
      this.groupInputs = [...this.groups].map(([group, label]) => element("label", { class: "choice" },
        element("input", {
          type: "radio", name: "group", value: group, onchange: () => player.setGroup(group),
        }), name(label)));
      const volume = volumeSlider("Volume", (decibels) => player.setVolume(decibels));
      this.meter = new Meter("Level");
      return element("div", { class: "transport" },
        this.playButton, this.clock,
        element("fieldset", { class: "choices" }, element("legend", { class: "unseen" }, "What is heard"), this.groupInputs),
        element("div", { class: "cluster", role: "group", "aria-label": "Loop" },
          this.loopButton, this.loopInputs[0], element("span", { "aria-hidden": "true" }, "to"), this.loopInputs[1]),
        element("div", { class: "cluster", role: "group", "aria-label": "Zoom" },
          button("−", () => this.#zoom(0.5), { "aria-label": "Zoom out" }),
          button("+", () => this.#zoom(2), { "aria-label": "Zoom in" }),
          button("Whole", () => timeline.setView(0, player.duration_s), { "aria-label": "Show the whole recording" })),
        element("div", { class: "cluster grow" }, element("span", { "aria-hidden": "true" }, "Volume"), volume, this.meter.element),
        this.waiting,
      );
    }

    #scrollBar() {
      this.scroll = element("input", {
        type: "range", class: "scroll", min: 0, max: 1000, value: 0, "aria-label": "Scroll along the recording", hidden: true,
        oninput: () => {
          const { timeline, player } = this;
          const start_s = (this.scroll.value / 1000) * (player.duration_s - timeline.length_s);
          timeline.setView(start_s, start_s + timeline.length_s);
        },
      });
      return this.scroll;
    }

    #keys() {
      const rows = KEYS.map(([key, does]) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, does)));
      return element("details", { class: "keys" },
        element("summary", {}, "Keys and mouse"),
        element("dl", {}, rows),
        element("p", {}, "Click to go there, drag to loop a range. Ctrl and wheel, or two fingers, zoom."));
    }

    #connect(onFailure) {
      const { player, timeline } = this;
      player.addEventListener("change", () => this.#show());
      player.addEventListener("seek", () => this.#reveal(player.position_s));
      player.addEventListener("failure", (event) => onFailure(event.detail));
      timeline.addEventListener("seek", (event) => this.#seek(event.detail));
      timeline.addEventListener("range", (event) => this.loopOver(event.detail));
      timeline.addEventListener("view", () => this.#showScroll());
      this.onKey = (event) => this.#key(event);
      document.addEventListener("keydown", this.onKey);
    }

    #seek(position_s) {
      const { player } = this;
      const { loop } = player;
      // Who clicks outside the loop wants to hear that.
      if (loop && (position_s < loop.start_s || position_s >= loop.end_s)) player.setLoop(null);
      player.seek(position_s);
    }

    #zoom(factor) {
      const { timeline, player } = this;
      const { start_s, end_s } = timeline.view;
      const position_s = player.position_s;
      const isSeen = position_s >= start_s && position_s <= end_s;
      timeline.zoom(factor, isSeen ? position_s : undefined);
    }

    #toggleLoop() {
      const { player } = this;
      if (player.loop) player.setLoop(null);
      else this.loopOver(this.range ?? { start_s: 0, end_s: player.duration_s });
    }

    #enterLoop(end, input) {
      const entered_s = secondsOf(input.value);
      if (entered_s === null || entered_s > this.player.duration_s) {
        input.setCustomValidity(`Times are as 1:23.5, up to ${time(this.player.duration_s, 2)}.`);
        input.reportValidity();
        return;
      }
      this.#setLoopEnd(end, entered_s);
    }

    // An end that passes the other one leaves that at the end of the recording.
    #setLoopEnd(end, position_s) {
      const range = { start_s: 0, end_s: this.player.duration_s, ...this.range, [end]: position_s };
      if (range.start_s >= range.end_s) {
        if (end === "start_s") range.end_s = this.player.duration_s;
        else range.start_s = 0;
      }
      this.loopOver(range);
    }

    #nextGroup() {
      const groups = [...this.groups.keys()];
      this.player.setGroup(groups[(groups.indexOf(this.player.group) + 1) % groups.length]);
    }

    #solo(number) {
      const id = [...this.player.signals.keys()][number - 1];
      if (id !== undefined) this.player.setSolos([id]);
    }

    #key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const target = event.target;
      const isText = target.matches("input:not([type=range], [type=radio], [type=checkbox]), select, textarea");
      if (isText) return;
      const isControl = target.matches("button, a, summary, input");
      const moves = target.matches("input");
      const step_s = event.shiftKey ? LARGE_STEP_S : STEP_S;
      const { player } = this;
      const actions = {
        " ": isControl ? null : () => player.toggle(),
        ArrowLeft: moves ? null : () => this.#seek(player.position_s - step_s),
        ArrowRight: moves ? null : () => this.#seek(player.position_s + step_s),
        PageUp: target === this.timeline.axis ? () => this.#seek(player.position_s + LARGE_STEP_S) : null,
        PageDown: target === this.timeline.axis ? () => this.#seek(player.position_s - LARGE_STEP_S) : null,
        ArrowUp: target === this.timeline.axis ? () => this.#seek(player.position_s + step_s) : null,
        ArrowDown: target === this.timeline.axis ? () => this.#seek(player.position_s - step_s) : null,
        Home: moves ? null : () => this.#seek(0),
        End: moves ? null : () => this.#seek(player.duration_s),
        b: () => this.#nextGroup(),
        0: () => player.setSolos([]),
        "[": () => this.#setLoopEnd("start_s", player.position_s),
        "]": () => this.#setLoopEnd("end_s", player.position_s),
        l: () => this.#toggleLoop(),
        "+": () => this.#zoom(2),
        "=": () => this.#zoom(2),
        "-": () => this.#zoom(0.5),
        f: () => this.timeline.setView(0, player.duration_s),
      };
      for (let number = 1; number <= 9; number++) actions[number] = () => this.#solo(number);
      if (this.blindKeys) Object.assign(actions, { 0: null }, this.blindKeys);
      const action = actions[event.key] ?? actions[event.key.toLowerCase()];
      if (!action) return;
      event.preventDefault();
      action();
    }

    // All that shows the player's state.
    #show() {
      const { player, timeline } = this;
      this.playButton.replaceChildren(player.isPlaying ? "Pause" : "Play");
      this.playButton.disabled = !player.canPlay;
      press(this.loopButton, player.loop !== null);
      if (player.loop) this.range = player.loop;
      timeline.setRange(this.range);
      timeline.rangeBox.classList.toggle("idle", !player.loop);
      ["start_s", "end_s"].forEach((end, index) => {
        const input = this.loopInputs[index];
        // Not under the hands of who types.
        if (this.range && !input.matches(":focus")) input.value = time(this.range[end], 2);
      });
      const anySolo = [...player.signals.values()].some(({ isSolo }) => isSolo);
      this.groupInputs.forEach((label) => {
        const input = label.firstChild;
        input.checked = !anySolo && input.value === player.group;
      });
      for (const [id, { solo, mute }] of this.toggles) {
        const signal = player.signals.get(id);
        press(solo, signal.isSolo);
        press(mute, signal.isMuted);
        solo.closest(".controls").classList.toggle("unheard", player.gain(id) === 0);
      }
      this.#showMoment();
      this.#keepPosition();
      if (player.isPlaying) this.#frame ||= requestAnimationFrame(() => this.#animate());
    }

    #animate() {
      this.#frame = 0;
      if (!this.player.isPlaying) return;
      this.#showMoment();
      this.#follow();
      this.#frame = requestAnimationFrame(() => this.#animate());
    }

    #showMoment() {
      const { player, timeline } = this;
      const position_s = player.position_s;
      timeline.setPosition(position_s);
      this.clock.value = `${time(position_s, 2)} / ${time(player.duration_s, 2)}`;
      if (!player.isPlaying || Math.abs(position_s - this.#spoken_s) >= 0.1) {
        this.#spoken_s = position_s;
        timeline.axis.setAttribute("aria-valuenow", position_s.toFixed(2));
        timeline.axis.setAttribute("aria-valuetext", `${spokenTime(position_s)} of ${spokenTime(player.duration_s)}`);
      }
      this.meter.show(player.level_db());
      this.meters.forEach((meter, id) => meter.show(player.level_db(id)));
      const waits = player.isWaiting && position_s < player.duration_s ? "Loading sound …" : "";
      if (this.waiting.textContent !== waits) this.waiting.textContent = waits;
    }

    // What plays out of the view turns its page.
    #follow() {
      const { timeline, player } = this;
      const position_s = player.position_s;
      const { start_s, end_s } = timeline.view;
      if (position_s < start_s || position_s > end_s) timeline.setView(position_s, position_s + timeline.length_s);
    }

    #reveal(position_s) {
      const { timeline } = this;
      const { start_s, end_s } = timeline.view;
      if (position_s >= start_s && position_s <= end_s) return;
      timeline.setView(position_s - timeline.length_s / 2, position_s + timeline.length_s / 2);
    }

    #showScroll() {
      const { timeline, player } = this;
      const rest_s = player.duration_s - timeline.length_s;
      this.scroll.hidden = rest_s < 1e-6;
      this.scroll.value = rest_s > 0 ? (timeline.view.start_s / rest_s) * 1000 : 0;
      const { start_s, end_s } = timeline.view;
      this.scroll.setAttribute("aria-valuetext", `${time(start_s, 1)} to ${time(end_s, 1)}`);
    }

    #keepPosition() {
      if (!this.player.isPlaying) this.onMove(this.player.position_s);
    }
  }

  // In words, for who wanted to listen.
  function whyNoSound(error) {
    if (error instanceof beamsplitter.MissingFile) return error.message;
    return "This browser can’t decode the sound of this page, which is Ogg Opus: newer ones can.";
  }

  Object.assign(beamsplitter, { ListeningRoom, whyNoSound, Meter, button });
}
