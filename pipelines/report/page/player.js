"use strict";

// Plays signals that were cut into chunks, all of them by one clock, to the sample.
{
  const SAMPLE_RATE = 48000;
  const FADE_S = 0.01; // where chunks meet
  const HORIZON_S = 3; // what is scheduled ahead
  const START_DELAY_S = 0.06; // from a key to its sound, so that all signals can start together
  const LEAST_LOOP_S = 0.1;
  const GAIN_TIME_S = 0.004; // changes of gain go exponentially, without a click
  const CHUNKS_KEPT = 3;
  const PUMP_MS = 100;

  // Whole samples: what starts between two of them is interpolated.
  const onGrid = (seconds) => Math.round(seconds * SAMPLE_RATE) / SAMPLE_RATE;
  const gainOf = (decibels) => 10 ** (decibels / 20);

  let sharedContext = null;
  function audioContext() {
    sharedContext ??= new AudioContext({ sampleRate: SAMPLE_RATE, latencyHint: "interactive" });
    return sharedContext;
  }

  // Raises where the browser does not know the codec.
  function decode(base64) {
    // An offline context decodes before there was a gesture, and at our rate whatever the device's is.
    return new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(beamsplitter.bytesOf(base64).buffer);
  }

  // Start one piece of one chunk: all signals from `from_s` to `to_s` of the recording, at `at_s` of the clock.
  // Where it is faded it sounds for half a fade more, which the piece beside it fades into.
  function schedulePiece(context, chunk, piece, inputs) {
    const half = FADE_S / 2;
    return [...inputs].map(([id, input]) => {
      const buffer = chunk.buffers.get(id);
      const from_s = Math.max(piece.from_s - (piece.fadeIn ? half : 0), chunk.audioStart_s);
      const to_s = Math.min(piece.to_s + (piece.fadeOut ? half : 0), chunk.audioStart_s + buffer.duration);
      const at_s = piece.at_s - (piece.from_s - from_s);
      const stop_s = piece.at_s + (piece.to_s - piece.from_s);
      const source = new AudioBufferSourceNode(context, { buffer });
      const fade = new GainNode(context);
      if (piece.fadeIn) {
        fade.gain.setValueAtTime(0, piece.at_s - half);
        fade.gain.linearRampToValueAtTime(1, piece.at_s + half);
      }
      if (piece.fadeOut) {
        fade.gain.setValueAtTime(1, stop_s - half);
        fade.gain.linearRampToValueAtTime(0, stop_s + half);
      }
      source.connect(fade).connect(input);
      source.start(onGrid(at_s), onGrid(from_s - chunk.audioStart_s), onGrid(Math.max(0, to_s - from_s)));
      return source;
    });
  }

  // What one call of play, seek or loop has scheduled. The next one takes over from it with a fade.
  class Deck {
    constructor(context, signals, from_s) {
      this.context = context;
      this.inputs = new Map();
      for (const [id, nodes] of signals) {
        const input = new GainNode(context);
        input.connect(nodes.gain);
        this.inputs.set(id, input);
      }
      this.next_s = from_s;
      this.nextAt_s = 0;
      this.isComplete = false;
      this.spans = [];
      this.sources = new Set();
    }

    add(chunk, piece) {
      for (const source of schedulePiece(this.context, chunk, piece, this.inputs)) {
        this.sources.add(source);
        source.onended = () => this.sources.delete(source);
      }
      const now_s = this.context.currentTime;
      this.spans = this.spans.filter((span) => span.at_s + (span.to_s - span.from_s) > now_s - 1);
      this.spans.push(piece);
    }

    positionAt(time_s) {
      const begun = this.spans.filter((span) => span.at_s <= time_s);
      const span = begun.at(-1) ?? this.spans[0];
      if (!span) return this.next_s;
      return Math.min(span.to_s, Math.max(span.from_s, span.from_s + time_s - span.at_s));
    }

    stopAt(time_s) {
      for (const input of this.inputs.values()) {
        input.gain.setValueAtTime(1, time_s - FADE_S / 2);
        input.gain.linearRampToValueAtTime(0, time_s + FADE_S / 2);
      }
      for (const source of this.sources) source.stop(time_s + FADE_S);
      const wait_ms = (time_s + 2 * FADE_S - this.context.currentTime) * 1000;
      setTimeout(() => this.inputs.forEach((input) => input.disconnect()), wait_ms + 200);
    }
  }

  // `signals` is a list of { id, group }, of which one group sounds unless some are soloed. `loadChunk(n)` gives a
  // chunk as it is stored. Tells of each "change", and of a "failure" to load or decode.
  class Player extends EventTarget {
    #kept;
    #nodes = null;
    #deck = null;
    #pumping = null;
    #stopped_s = 0;
    #failed = false;

    constructor({ duration_s, chunk_s, signals, loadChunk }) {
      super();
      this.duration_s = duration_s;
      this.chunk_s = chunk_s;
      this.signals = new Map(
        signals.map(({ id, group }) => [id, { group, volume_db: 0, isMuted: false, isSolo: false }]),
      );
      this.groups = [...new Set(signals.map(({ group }) => group))];
      this.group = this.groups[0];
      this.volume_db = 0;
      this.loop = null;
      this.blindTrims = null;
      this.loadChunk = loadChunk;
      this.#kept = new beamsplitter.Kept(CHUNKS_KEPT, (number) => this.#decodeChunk(number));
    }

    get canPlay() {
      return !this.#failed;
    }

    get isPlaying() {
      return this.#deck !== null;
    }

    get isWaiting() {
      return this.isPlaying && !this.#deck.isComplete && this.#deck.nextAt_s <= audioContext().currentTime;
    }

    // What is heard now, in seconds of the recording.
    get position_s() {
      if (!this.isPlaying) return this.#stopped_s;
      const context = audioContext();
      return this.#deck.positionAt(context.currentTime - (context.outputLatency || 0));
    }

    // Get ready to play from here: load and decode.
    async prepare() {
      try {
        await this.#kept.get(this.#chunkAt(this.#stopped_s));
      } catch (error) {
        this.#fail(error);
      }
    }

    play() {
      if (this.isPlaying || this.#failed) return;
      audioContext().resume();
      const from_s = this.#stopped_s >= this.duration_s - FADE_S ? (this.loop?.start_s ?? 0) : this.#stopped_s;
      this.#start(from_s);
      this.#pumping = setInterval(() => this.#pump(), PUMP_MS);
      this.#changed();
    }

    pause() {
      if (!this.isPlaying) return;
      this.#stopped_s = this.position_s;
      this.#halt();
      this.#changed();
    }

    toggle() {
      if (this.isPlaying) this.pause();
      else this.play();
    }

    seek(position_s) {
      const to_s = onGrid(Math.min(this.duration_s, Math.max(0, position_s)));
      this.#stopped_s = to_s;
      if (this.isPlaying) {
        this.#deck.stopAt(audioContext().currentTime + FADE_S);
        this.#start(Math.min(to_s, this.duration_s - FADE_S));
      }
      this.dispatchEvent(new Event("seek"));
      this.#changed();
    }

    // Loop from `start_s` to `end_s`; null plays on.
    setLoop(loop) {
      if (loop) {
        const start_s = onGrid(Math.max(0, Math.min(loop.start_s, this.duration_s - LEAST_LOOP_S)));
        const end_s = onGrid(Math.min(this.duration_s, Math.max(loop.end_s, start_s + LEAST_LOOP_S)));
        this.loop = { start_s, end_s };
      } else {
        this.loop = null;
      }
      const isInside = !this.loop || (this.position_s >= this.loop.start_s && this.position_s < this.loop.end_s);
      if (!isInside) this.seek(this.loop.start_s);
      else if (this.isPlaying) this.#planAnew();
      this.#changed();
    }

    setGroup(group) {
      this.group = group;
      this.signals.forEach((signal) => (signal.isSolo = false));
      this.#mix();
    }

    // Only these sound; none: the group.
    setSolos(ids) {
      this.signals.forEach((signal, id) => (signal.isSolo = ids.includes(id)));
      this.#mix();
    }

    // `change` has any of volume_db, isMuted, isSolo.
    setSignal(id, change) {
      Object.assign(this.signals.get(id), change);
      this.#mix();
    }

    // Listen blindly, by these changes of level in dB; volumes and mutes do not count until it is null again.
    setBlind(trims) {
      this.blindTrims = trims;
      this.#mix();
    }

    setVolume(decibels) {
      this.volume_db = decibels;
      this.#mix();
    }

    // The gain that a signal is heard by: 0 where it is muted, or not chosen.
    gain(id) {
      const signal = this.signals.get(id);
      const solos = [...this.signals.values()].some(({ isSolo }) => isSolo);
      const isChosen = solos ? signal.isSolo : signal.group === this.group;
      if (this.blindTrims) return isChosen ? gainOf(this.blindTrims.get(id) ?? 0) : 0;
      return isChosen && !signal.isMuted ? gainOf(signal.volume_db) : 0;
    }

    // Of what is heard just now, in dB re full scale: of one signal, or of all together.
    level_db(id = null) {
      if (!this.isPlaying || !this.#nodes) return -Infinity;
      const meter = id === null ? this.#nodes.meter : this.#nodes.signals.get(id).meter;
      const samples = new Float32Array(meter.fftSize);
      meter.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      return 10 * Math.log10(power);
    }

    // What would be heard from `from_s` to `to_s`, as it is scheduled when played: an AudioBuffer.
    async render(from_s, to_s) {
      const context = new OfflineAudioContext(2, Math.round((to_s - from_s) * SAMPLE_RATE), SAMPLE_RATE);
      const inputs = new Map();
      for (const id of this.signals.keys()) {
        const input = new GainNode(context, { gain: this.gain(id) });
        input.connect(context.destination);
        inputs.set(id, input);
      }
      for (let next_s = onGrid(from_s); next_s < to_s; ) {
        const number = this.#chunkAt(next_s);
        const chunk = await this.#kept.get(number);
        const piece = this.#piece(number, next_s, next_s - from_s, to_s);
        schedulePiece(context, chunk, {
          ...piece, fadeIn: piece.from_s > from_s, fadeOut: piece.to_s < to_s,
        }, inputs);
        next_s = piece.to_s;
      }
      return context.startRendering();
    }

    dispose() {
      if (this.isPlaying) this.pause();
      if (!this.#nodes) return;
      const { master } = this.#nodes;
      setTimeout(() => master.disconnect(), 300);
      this.#nodes = null;
    }

    #chunkAt(position_s) {
      const last = Math.max(0, Math.ceil(this.duration_s / this.chunk_s - 1e-6) - 1);
      return Math.min(last, Math.floor(position_s / this.chunk_s + 1e-9));
    }

    #piece(number, from_s, at_s, end_s) {
      const to_s = onGrid(Math.min((number + 1) * this.chunk_s, end_s, this.duration_s));
      return { from_s, to_s, at_s, fadeIn: from_s > 0, fadeOut: to_s < onGrid(this.duration_s) };
    }

    async #decodeChunk(number) {
      const stored = await this.loadChunk(number);
      const ids = [...this.signals.keys()];
      const buffers = await Promise.all(ids.map((id) => decode(stored.signals[id].audio)));
      return {
        audioStart_s: onGrid(number * this.chunk_s - stored.lead_s),
        buffers: new Map(ids.map((id, index) => [id, buffers[index]])),
      };
    }

    // The chunk if it is there; else it is asked for, and what is scheduled goes on when it comes.
    #ready(number) {
      const loading = this.#kept.get(number);
      if (!loading.isWatched) {
        loading.isWatched = true;
        loading.then(
          (chunk) => {
            loading.chunk = chunk;
            this.#pump();
          },
          (error) => this.#fail(error),
        );
      }
      return loading.chunk;
    }

    #start(from_s) {
      this.#deck = new Deck(audioContext(), this.#connected().signals, from_s);
      this.#pump();
    }

    #pump() {
      const deck = this.#deck;
      if (!deck) return;
      const now_s = deck.context.currentTime;
      while (!deck.isComplete && deck.nextAt_s < now_s + HORIZON_S) {
        const number = this.#chunkAt(deck.next_s);
        const chunk = this.#ready(number);
        if (!chunk) break;
        // The first piece, or one that came too late.
        if (deck.nextAt_s < now_s + FADE_S) deck.nextAt_s = onGrid(now_s + START_DELAY_S);
        this.#schedule(deck, number, chunk);
      }
      if (!deck.isComplete) this.#ready(this.#chunkAt(deck.next_s));
      const following = this.#chunkAt(deck.next_s + this.chunk_s / 2);
      if (!this.loop && !deck.isComplete) this.#ready(following);
      this.#finishIfOver();
    }

    #schedule(deck, number, chunk) {
      const isInLoop = this.loop && deck.next_s < this.loop.end_s;
      const piece = this.#piece(number, deck.next_s, deck.nextAt_s, isInLoop ? this.loop.end_s : this.duration_s);
      const comesBack = isInLoop && piece.to_s >= this.loop.end_s;
      piece.fadeOut ||= comesBack;
      deck.add(chunk, piece);
      deck.nextAt_s = onGrid(deck.nextAt_s + piece.to_s - piece.from_s);
      deck.next_s = comesBack ? this.loop.start_s : piece.to_s;
      deck.isComplete = !comesBack && piece.to_s >= onGrid(this.duration_s);
    }

    // What was scheduled ahead no longer holds: go on from where it is by a new deck, without a gap.
    #planAnew() {
      const at_s = onGrid(audioContext().currentTime + START_DELAY_S);
      const old = this.#deck;
      const from_s = onGrid(old.positionAt(at_s));
      old.stopAt(at_s);
      this.#deck = new Deck(audioContext(), this.#connected().signals, from_s);
      this.#deck.nextAt_s = at_s;
      this.#pump();
    }

    #finishIfOver() {
      const deck = this.#deck;
      if (!deck.isComplete || deck.context.currentTime < deck.nextAt_s) return;
      this.#stopped_s = this.duration_s;
      this.#halt();
      this.#changed();
    }

    #halt() {
      clearInterval(this.#pumping);
      this.#deck.stopAt(audioContext().currentTime + FADE_S);
      this.#deck = null;
    }

    #connected() {
      if (this.#nodes) return this.#nodes;
      const context = audioContext();
      const master = new GainNode(context, { gain: gainOf(this.volume_db) });
      const meter = new AnalyserNode(context, { fftSize: 2048 });
      master.connect(meter).connect(context.destination);
      const signals = new Map();
      for (const id of this.signals.keys()) {
        const gain = new GainNode(context, { gain: this.gain(id) });
        const signalMeter = new AnalyserNode(context, { fftSize: 2048 });
        gain.connect(signalMeter);
        gain.connect(master);
        signals.set(id, { gain, meter: signalMeter });
      }
      this.#nodes = { master, meter, signals };
      return this.#nodes;
    }

    #mix() {
      if (this.#nodes) {
        const now_s = audioContext().currentTime;
        this.#nodes.master.gain.setTargetAtTime(gainOf(this.volume_db), now_s, GAIN_TIME_S);
        for (const [id, { gain }] of this.#nodes.signals) {
          gain.gain.setTargetAtTime(this.gain(id), now_s, GAIN_TIME_S);
        }
      }
      this.#changed();
    }

    // What is missing may be there at the next try; what this browser can't decode, it never can.
    #fail(error) {
      this.#failed ||= !(error instanceof beamsplitter.MissingFile);
      if (this.isPlaying) this.pause();
      this.dispatchEvent(new CustomEvent("failure", { detail: error }));
      this.#changed();
    }

    #changed() {
      this.dispatchEvent(new Event("change"));
    }
  }

  Object.assign(beamsplitter, { Player, SAMPLE_RATE });
}
