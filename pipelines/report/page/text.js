"use strict";

// Elements, and numbers in words. All text goes in as text nodes: names from the data are never markup.
{
  const NO_VALUE = "–";

  // `element("a", { href: "#", class: "name", onclick: f }, "text", otherElement)`; null children are left out.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  }

  // Names come from files: directions of writing in them must not turn what stands around them.
  const name = (text, attributes = {}, ...children) => element("bdi", attributes, text, ...children);

  // A path may be broken after each folder.
  const path = (text) => name("", {}, text.split(/(?<=\/)/).flatMap((part, place) => (place ? [element("wbr"), part] : [part])));

  function replaceChildren(parent, ...children) {
    parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  }

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

  // "1:02:03", "2:03", with decimals "2:03.250".
  function time(seconds, decimals = 0) {
    if (!isNumber(seconds)) return NO_VALUE;
    const scale = 10 ** decimals;
    const units = Math.round(Math.max(0, seconds) * scale);
    const whole = Math.floor(units / scale);
    const fraction = decimals ? "." + String(units % scale).padStart(decimals, "0") : "";
    const two = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60;
    const end = two(whole % 60) + fraction;
    return hours ? `${hours}:${two(minutes)}:${end}` : `${minutes}:${end}`;
  }

  // Seconds of "83", "1:23.5" or "1:02:03"; null for what is no time.
  function secondsOf(text) {
    if (!/^\s*(\d+:){0,2}\d+(\.\d*)?\s*$/.test(text)) return null;
    return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  }

  // For a listener of a screen reader: "1 minute 2.5 seconds".
  function spokenTime(seconds) {
    const whole = Math.max(0, Math.round(seconds * 10) / 10);
    const minutes = Math.floor(whole / 60);
    const rest = Number((whole - minutes * 60).toFixed(1));
    const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
    return minutes ? `${plural(minutes, "minute")} ${plural(rest, "second")}` : plural(rest, "second");
  }

  // "2.4 hours", "12 min", "31 s".
  function span(seconds) {
    if (!isNumber(seconds)) return NO_VALUE;
    if (seconds >= 3600) return `${number(seconds / 3600, 1)} h`;
    if (seconds >= 60) return `${number(seconds / 60, 1)} min`;
    return `${number(seconds, 1)} s`;
  }

  function number(value, decimals = 0) {
    if (!isNumber(value)) return NO_VALUE;
    return value.toLocaleString("en", { maximumFractionDigits: decimals, minimumFractionDigits: 0 });
  }

  // With a true minus sign and always as many decimals, so that columns line up.
  function fixed(value, decimals = 1) {
    if (!isNumber(value)) return NO_VALUE;
    const text = value.toFixed(decimals);
    return Number(text) < 0 ? text.replace("-", "−") : text.replace("-", "");
  }

  const level = (decibels) => (decibels === null ? "silent" : fixed(decibels));

  function size(bytes) {
    if (!isNumber(bytes)) return "";
    for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
      if (bytes >= scale) return `${number(bytes / scale, 1)} ${unit}`;
    }
    return `${bytes} bytes`;
  }

  function moment(iso) {
    const date = new Date(iso ?? NaN);
    if (Number.isNaN(date.getTime())) return NO_VALUE;
    return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }

  const percent = (share) => `${number(share * 100, share < 0.1 ? 1 : 0)} %`;

  const MEASURES = {
    si_sdr: "SI-SDR", sdr: "SDR", isr: "ISR", sir: "SIR", sar: "SAR", snr: "SNR", pesq: "PESQ", stoi: "STOI",
  };
  const measure = (key) => MEASURES[key] ?? key.replaceAll("_", " ").toUpperCase();

  // What a step of the graph does, by its name.
  const STEPS = {
    ReadEvents: "reading the input list",
    AcceptMessages: "reading the event",
    SkipFinished: "looking for earlier results",
    PlanParts: "looking into the file",
    CountAttempts: "trying it again",
    LoadBinary: "reading the file",
    LoadAudio: "decoding the audio",
    LoadStems: "reading the stems",
    GetSTFT: "separating",
    GetMagnitude: "separating",
    FilterNearestNeighbors: "separating",
    SubtractNearest: "separating",
    GetSoftMask: "separating",
    InverseSTFT: "separating",
    RunInference: "running the model",
    MeasureMixture: "measuring the level",
    EncodeStems: "writing the stems",
    ScoreStems: "scoring the stems",
    TakeFeatures: "computing features",
    WriteLabels: "labelling",
    GetSpec: "drawing",
    SpecToPlot: "drawing",
    UploadPlots: "storing the plots",
    JoinParts: "joining the parts",
    PublishTrack: "publishing the results",
  };
  const step = (key) => STEPS[key] ?? key;

  // A nested list of whatever a JSON value holds.
  function facts(value) {
    if (value === null) return document.createTextNode("none");
    if (Array.isArray(value)) {
      if (!value.some((entry) => typeof entry === "object" && entry !== null)) {
        return name(value.map(String).join(", ") || "none");
      }
      return element("ul", {}, value.map((entry) => element("li", {}, facts(entry))));
    }
    if (typeof value === "object") {
      const entries = Object.entries(value);
      if (!entries.length) return document.createTextNode("none");
      return element("dl", {}, entries.map(([key, entry]) => element(
        "div", {}, element("dt", {}, name(key)), element("dd", {}, facts(entry)),
      )));
    }
    return name(typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
  }

  beamsplitter.text = {
    NO_VALUE, element, name, path, replaceChildren, isNumber, time, secondsOf, spokenTime, span, number, fixed, level,
    size, moment, percent, measure, step, facts,
  };
}
