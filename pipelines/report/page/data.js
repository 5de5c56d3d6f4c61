"use strict";

// The data beside the page. Pages that are opened as files may not fetch: each data file is a script that
// calls `beamsplitter.receive` with what it holds.
const beamsplitter = {};

{
  const received = new WeakMap();

  beamsplitter.receive = (value) => received.set(document.currentScript, value);

  class MissingFile extends Error {}

  // A path below the page's folder, as an address. A segment such as `..` would lead out of it. Where the page's own
  // address is signed, the same signature is for all that lies beside it.
  function addressOf(path, version) {
    const segments = path.split("/");
    if (segments.some((segment) => ["", ".", ".."].includes(segment))) {
      throw new MissingFile(`“${path}” is no path below this page’s folder.`);
    }
    const asked = location.search + (version ? `${location.search ? "&" : "?"}v=${encodeURIComponent(version)}` : "");
    return `./${segments.map(encodedSegment).join("/")}${asked}`;
  }

  // Names that are no text have a half of a pair for each byte that is none (U+DC80 to U+DCFF).
  function encodedSegment(segment) {
    return segment.replace(/\P{Cs}+|\p{Cs}/gu, (piece) => (/\p{Cs}/u.test(piece)
      ? `%${(piece.charCodeAt(0) & 0xff).toString(16).toUpperCase()}`
      : encodeURIComponent(piece)));
  }

  // As it comes back from an address.
  const wellFormed = (text) => text.replace(/\p{Cs}/gu, "\ufffd");

  // What the file at a path holds. Another version is asked for anew, past what the browser keeps.
  function load(path, version) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = addressOf(path, version);
      script.onload = () => {
        script.remove();
        if (received.has(script)) resolve(received.get(script));
        else reject(new MissingFile(`${path} holds no data of this page: build the page again.`));
      };
      script.onerror = () => {
        script.remove();
        reject(new MissingFile(`${path} can’t be read: was the folder copied as a whole?`));
      };
      document.head.append(script);
    });
  }

  // Keeps the last `limit` values that were asked for by a key; `make` gives a promise of one.
  class Kept {
    constructor(limit, make) {
      this.limit = limit;
      this.make = make;
      this.values = new Map();
    }

    get(key) {
      let value = this.values.get(key);
      if (value === undefined) {
        value = this.make(key);
        // What failed is tried again when it is next asked for.
        value.catch(() => this.values.get(key) === value && this.values.delete(key));
      }
      this.values.delete(key);
      this.values.set(key, value);
      for (const oldest of this.values.keys()) {
        if (this.values.size <= this.limit) break;
        this.values.delete(oldest);
      }
      return value;
    }
  }

  // A list that is cut into files of `rowsPerFile` entries: `rows-00000.js`, `rows-00001.js` …
  class PagedList {
    constructor({ prefix, name, count, rowsPerFile, version }) {
      Object.assign(this, { prefix, name, count, rowsPerFile, version });
      this.files = new Map();
    }

    file(number) {
      if (!this.files.has(number)) {
        const digits = String(number).padStart(5, "0");
        const loading = load(`${this.prefix}report/${this.name}-${digits}.js`, this.version);
        loading.catch(() => this.files.get(number) === loading && this.files.delete(number));
        this.files.set(number, loading);
      }
      return this.files.get(number);
    }

    get fileCount() {
      return Math.ceil(this.count / this.rowsPerFile);
    }

    async range(start, stop) {
      const first = Math.floor(start / this.rowsPerFile);
      const last = Math.ceil(Math.min(stop, this.count) / this.rowsPerFile);
      const files = [];
      for (let number = first; number < last; number++) files.push(this.file(number));
      const offset = first * this.rowsPerFile;
      return (await Promise.all(files)).flat().slice(start - offset, stop - offset);
    }

    // All entries; `tell` is given the share that is there.
    async all(tell = () => {}) {
      const entries = [];
      for (let number = 0; number < this.fileCount; number++) {
        // One file ahead: asked for all at once, a slow host would starve what the page needs now.
        if (number + 1 < this.fileCount) this.file(number + 1);
        entries.push(...(await this.file(number)));
        tell((number + 1) / this.fileCount);
      }
      return entries;
    }
  }

  const FORMAT = 1;

  // One run: the page's own (prefix ""), or one of those that are compared (prefix "a/").
  class Run {
    constructor(prefix, facts) {
      if (facts.format !== FORMAT) {
        throw new Error(`These data have format ${facts.format}, and this page reads ${FORMAT}: build the page again.`);
      }
      this.prefix = prefix;
      this.facts = facts;
      this.version = facts.updated;
      const list = (name, count) => new PagedList({
        prefix, name, count, rowsPerFile: facts.rows_per_file, version: this.version,
      });
      this.rows = list("rows", facts.recordings);
      this.recordingFacts = list("facts", facts.recordings);
      this.failures = list("failures", facts.failures);
    }

    // As it stands now.
    static async load(prefix) {
      return new Run(prefix, await load(`${prefix}report/run.js`, Date.now()));
    }

    // Of a file below the run's folder.
    address(path) {
      return addressOf(this.prefix + path);
    }

    loadReport(folder) {
      return load(`${this.prefix}${folder}/report.js`, this.version);
    }

    loadChunk(folder, number) {
      return load(`${this.prefix}${folder}/report-${String(number).padStart(5, "0")}.js`, this.version);
    }

    // Where a recording stands in the list. `hint` is where it stood when its link was made.
    async find(folder, hint, tell) {
      if (Number.isInteger(hint) && hint >= 0 && hint < this.rows.count) {
        const [row] = await this.rows.range(hint, hint + 1);
        if (row && wellFormed(row.folder) === wellFormed(folder)) return { row, index: hint };
      }
      const rows = await this.rows.all(tell);
      const index = rows.findIndex((row) => wellFormed(row.folder) === wellFormed(folder));
      return index < 0 ? null : { row: rows[index], index };
    }
  }

  function bytesOf(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
    return bytes;
  }

  // Pairs of the least and greatest sample of each column, in 127ths of full scale.
  const peaksOf = (base64) => new Int8Array(bytesOf(base64).buffer);

  Object.assign(beamsplitter, { load, Kept, PagedList, Run, MissingFile, bytesOf, peaksOf });
}
