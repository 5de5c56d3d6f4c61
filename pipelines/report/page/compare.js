"use strict";

// Two runs over the same recordings: their scores beside each other, and listening that need not know which is which.
{
  const {
    element, name, path, replaceChildren, isNumber, time, fixed, number, measure, level, NO_VALUE,
  } = beamsplitter.text;
  const loadedRuns = new Map();

  // The runs of this page, each with its `name`. Kept from view to view, with the rows that were read.
  function loadRuns(facts) {
    return Promise.all(facts.compare.map(async (entry) => {
      if (!loadedRuns.has(entry.path)) loadedRuns.set(entry.path, beamsplitter.Run.load(`${entry.path}/`));
      return Object.assign(await loadedRuns.get(entry.path), { name: entry.name });
    }));
  }

  const stemsOf = (runs) => [...new Set(runs.flatMap((run) => run.facts.stems ?? []))];
  const measuresOf = (runs) => [...new Set(runs.flatMap((run) => run.facts.measures ?? []))];

  // Recordings of any of the runs, by folder, with the row of each run that has it.
  async function joined(runs, tell) {
    const byFolder = new Map();
    for (const [place, run] of runs.entries()) {
      const rows = await run.rows.all((share) => tell((place + share) / runs.length));
      for (const row of rows) {
        if (!byFolder.has(row.folder)) byFolder.set(row.folder, { folder: row.folder, name: row.name, rows: [] });
        byFolder.get(row.folder).rows[place] = row;
      }
    }
    return [...byFolder.values()];
  }

  const scoreOf = (row, stem, key) => row?.scores?.[stem]?.[key];

  function valueColumns(runs, key) {
    return stemsOf(runs).flatMap((stem) => {
      const having = runs.map((run, place) => place).filter((place) => (runs[place].facts.stems ?? []).includes(stem));
      const value = (entry, place) => (key ? scoreOf(entry.rows[place], stem, key) : entry.rows[place]?.levels?.[stem]);
      const show = key ? (score) => fixed(score, 2) : (decibels) => (decibels === undefined ? NO_VALUE : level(decibels));
      const columns = having.map((place) => ({
        key: `${stem}:${place}`, isNumber: true, note: key ? measure(key) : "Level (RMS) in dB re full scale",
        title: element("span", {}, name(stem), name(runs[place].name, { class: "unit" })),
        value: (entry) => value(entry, place) ?? undefined,
        cell: (entry) => show(value(entry, place)),
      }));
      if (having.length === 2) {
        const difference = (entry) => {
          const [first, second] = having.map((place) => value(entry, place));
          return isNumber(first) && isNumber(second) ? second - first : undefined;
        };
        columns.push({
          key: `${stem}:difference`, isNumber: true, note: `${runs[1].name} less ${runs[0].name}`,
          title: element("span", {}, name(stem), element("span", { class: "unit" }, "difference")),
          value: difference, cell: (entry) => signed(difference(entry)),
        });
      }
      return columns;
    });
  }

  const signed = (value) => (isNumber(value) && Number(value.toFixed(2)) > 0 ? `+${fixed(value, 2)}` : fixed(value, 2));

  // Means over the recordings that all runs which have a stem have scored.
  function meanTable(runs, entries, key) {
    const rows = stemsOf(runs).flatMap((stem) => {
      const having = runs.map((_, place) => place).filter((place) => entries.some((entry) => isNumber(scoreOf(entry.rows[place], stem, key))));
      const shared = entries.filter((entry) => having.every((place) => isNumber(scoreOf(entry.rows[place], stem, key))));
      if (!having.length || !shared.length) return [];
      const mean = (place) => shared.reduce((sum, entry) => sum + scoreOf(entry.rows[place], stem, key), 0) / shared.length;
      const cells = runs.map((_, place) => (having.includes(place) ? fixed(mean(place), 2) : NO_VALUE));
      return [[name(stem), ...cells, number(shared.length)]];
    });
    if (!rows.length) return null;
    return beamsplitter.section(`Mean ${measure(key)}`, beamsplitter.table(
      `Mean ${measure(key)}`, ["Stem", ...runs.map((run) => name(run.name)), "Recordings"], rows));
  }

  class ComparedRuns {
    constructor(main, run, params, address) {
      Object.assign(this, { main, address, params });
      this.heading = element("h1", { tabindex: "-1" }, "Two runs side by side");
      this.status = element("p", { class: "waiting", role: "status" }, "Loading the runs …");
      this.means = element("div", {});
      this.list = new beamsplitter.ListTable({
        caption: "Recordings", noun: { one: "recording", many: "recordings" }, emptyText: "There are no recordings.",
        onChange: (changes) => address.write(changes),
      });
      replaceChildren(main, this.heading, this.status);
      document.title = "Two runs – Beamsplitter";
      this.ready = this.#load(run, params);
    }

    dispose() {
      clearTimeout(this.typing);
      this.isDisposed = true;
    }

    async update(params) {
      this.params = params;
      if (!this.entries) return;
      const { runs, entries, address } = this;
      const key = this.#measureOf(params);
      if (document.activeElement !== this.search) this.search.value = params.q ?? "";
      if (this.choice) this.choice.value = key;
      replaceChildren(this.means, key ? meanTable(runs, entries, key) : null);
      const columns = [
        {
          key: "name", title: "Recording", className: "name", value: (entry) => entry.name,
          cell: (entry) => element("a", { href: address.link({ recording: entry.folder }), title: entry.name }, path(entry.name)),
        },
        {
          key: "duration", title: "Length", isNumber: true, value: (entry) => entry.rows.find(Boolean).duration_s,
          cell: (entry) => time(entry.rows.find(Boolean).duration_s),
        },
        ...valueColumns(runs, key),
      ];
      const list = {
        count: entries.length, range: async (start, stop) => entries.slice(start, stop), all: async () => entries,
        searchText: (entry) => entry.name,
      };
      await this.list.show(list, columns, params);
    }

    #measureOf(params) {
      const measures = measuresOf(this.runs);
      return measures.includes(params.measure) ? params.measure : (measures[0] ?? null);
    }

    async #load(run, params) {
      this.runs = await loadRuns(run.facts);
      const entries = await joined(this.runs, (share) => (this.status.textContent = `Reading the lists: ${number(share * 100)} %`));
      if (this.isDisposed) return;
      this.entries = entries;
      replaceChildren(this.main, this.heading, this.#runTable(), this.means, this.#filters(), this.list.element);
      await this.update(params);
    }

    #runTable() {
      const rows = this.runs.map((run) => [
        name(run.name), number(run.rows.count), number(run.failures.count),
        (run.facts.stems ?? []).join(", ") || NO_VALUE, run.facts.settings?.stems?.separator ?? NO_VALUE,
      ]);
      const links = element("p", { class: "path" }, this.runs.map((run) => element(
        "a", { href: run.address("index.html") }, "All of ", name(run.name))));
      return element("div", {}, beamsplitter.table("The runs", ["Run", "Recordings", "Failures", "Stems", "Separator"], rows, (place) => place === 0 || place > 2), links);
    }

    #filters() {
      this.search = element("input", {
        type: "search", autocomplete: "off", spellcheck: "false",
        oninput: (event) => {
          clearTimeout(this.typing);
          this.typing = setTimeout(() => this.address.write({ q: event.target.value, page: null }, { replace: true }), 150);
        },
      });
      const measures = measuresOf(this.runs);
      this.choice = measures.length > 1
        ? element("select", { onchange: (event) => this.address.write({ measure: event.target.value, sort: null, order: null }) },
          measures.map((key) => element("option", { value: key }, measure(key))))
        : null;
      return element("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
        element("label", {}, "Search ", this.search), this.choice ? element("label", {}, "Score ", this.choice) : null);
    }
  }

  // One recording of all runs by one clock: the mixture, and the stems of each.
  class ComparedRecording {
    constructor(main, run, params, address) {
      Object.assign(this, { main, address, folder: params.recording });
      this.heading = element("h1", { tabindex: "-1" }, name(params.recording));
      this.status = element("p", { class: "waiting", role: "status" }, "Loading the recording …");
      this.navigation = element("nav", { class: "path", "aria-label": "Recordings" }, element("a", { href: address.linkToList() }, "All recordings"));
      replaceChildren(main, this.navigation, this.heading, this.status);
      document.title = `${params.recording} – Beamsplitter`;
      this.ready = this.#load(run, params);
    }

    get player() {
      return this.room?.player;
    }

    dispose() {
      this.isDisposed = true;
      this.blind?.dispose();
      this.room?.dispose();
    }

    update(params) {
      const start_s = Number(params.t);
      if (this.room && Number.isFinite(start_s) && params.t !== this.told) this.player.seek(start_s);
    }

    async #load(run, params) {
      const runs = await loadRuns(run.facts);
      const found = await Promise.all(runs.map((each) => each.find(this.folder, NaN, () => {})));
      this.folder = found.find(Boolean)?.row.folder;
      const reports = await Promise.all(found.map((each, place) => (
        each?.row.page ? runs[place].loadReport(this.folder).then(beamsplitter.checkReport) : null)));
      if (this.isDisposed) return;
      const first = found.find(Boolean);
      if (!first) {
        this.status.textContent = "None of the runs has such a recording.";
        return;
      }
      replaceChildren(this.heading, name(first.row.name));
      document.title = `${first.row.name} – Beamsplitter`;
      const scores = runs.map((each, place) => beamsplitter.scoreTable(found[place]?.row.scores, `Scores of ${each.name}`));
      const links = element("p", { class: "path" }, runs.map((each, place) => (found[place] ? element("a", {
        href: each.address("index.html") + this.address.link({ recording: this.folder, row: found[place].index }),
      }, "In ", name(each.name)) : null)));
      const why = this.#hindrance(runs, found, reports);
      const listening = why ? [element("p", { class: "notice" }, why)] : this.#openRoom(runs, reports, params);
      replaceChildren(this.main, this.navigation, this.heading, links, listening, element("div", { class: "beside" }, scores));
    }

    // Why the runs can't be heard together, if so.
    #hindrance(runs, found, reports) {
      const without = runs.filter((_, place) => !found[place]);
      if (without.length) return `${without.map((run) => run.name).join(" and ")} has no such recording.`;
      const silent = runs.filter((_, place) => !reports[place]?.audio);
      if (silent.length) return `The page of ${silent.map((run) => run.name).join(" and ")} was made without sound for this recording.`;
      if (new Set(reports.map((report) => report.chunk_s)).size > 1) return "The pages of these runs are cut differently: build both again.";
      return null;
    }

    #openRoom(runs, reports, params) {
      const loaders = runs.map((run) => beamsplitter.chunkLoader(run, this.folder));
      const groups = new Map();
      const signals = [];
      reports.forEach((report, place) => {
        for (const stem of report.signals) {
          const isMixture = stem === "mixture";
          if (isMixture && groups.has("mixture")) continue;
          const group = isMixture ? "mixture" : `run ${place}`;
          groups.set(group, isMixture ? "Mixture" : `${runs[place].name}: sum of stems`);
          signals.push({
            id: isMixture ? "mixture" : `${place}:${stem}`, stem, place, group, length_s: report.duration_s,
            label: isMixture ? "mixture" : `${runs[place].name}: ${stem}`,
            levels: report.levels?.[stem], peaks: report.peaks?.[stem], picture: report.pictures?.[stem],
            hertz: report.spectrogram?.hertz?.[stem],
          });
        }
      });
      const loadChunk = async (chunk) => {
        const parts = await Promise.all(loaders.map((load) => load(chunk)));
        return {
          lead_s: parts[0].lead_s,
          signals: Object.fromEntries(signals.map(({ id, stem, place }) => [id, parts[place].signals[stem]])),
        };
      };
      const player = new beamsplitter.Player({
        duration_s: Math.min(...reports.map((report) => report.duration_s)), chunk_s: reports[0].chunk_s, signals, loadChunk,
      });
      const notice = element("div", { role: "alert" });
      this.room = new beamsplitter.ListeningRoom({
        player, report: reports[0], signals, groups, marks: [], loadChunk, start_s: Number(params.t) || 0,
        onMove: (position_s) => {
          this.told = position_s >= 0.005 ? position_s.toFixed(2) : null;
          this.address.note({ t: this.told });
        },
        onFailure: (error) => replaceChildren(notice, element("p", { class: "notice" }, beamsplitter.whyNoSound(error))),
      });
      this.blind = new BlindListening(this.room, runs, signals, this.folder);
      return [notice, this.room.element, this.blind.element];
    }
  }

  // What was chosen so far, over all recordings that were heard: the place of a run, or null for no difference.
  const choices = [];

  class BlindListening {
    constructor(room, runs, signals, folder) {
      Object.assign(this, { room, runs, folder });
      const stems = [0, 1].map((place) => signals.filter((signal) => signal.place === place && signal.stem !== "mixture"));
      const pairs = stems[0].flatMap((first) => stems[1].map((second) => [first, second]));
      // Stems of the same name first.
      this.pairs = pairs.sort((a, b) => (a[0].stem !== a[1].stem) - (b[0].stem !== b[1].stem));
      this.body = element("div", {});
      this.element = beamsplitter.section("Blind listening", this.body);
      this.#invite();
    }

    dispose() {
      this.isDisposed = true;
    }

    #invite() {
      const pair = element("select", {}, this.pairs.map(([first, second], place) => element("option", { value: place },
        first.stem === second.stem ? first.stem : `${first.stem} and ${second.stem}`)));
      const same = element("input", { type: "checkbox", checked: true });
      const begin = beamsplitter.button("Begin", () => this.#begin(this.pairs[pair.value], same.checked));
      replaceChildren(this.body,
        element("p", {}, "Hear both runs as 1 and 2, in an order that chance draws for each round, and say which is better. Which is which is told at the end."),
        this.pairs.length ? element("div", { class: "cluster" },
          element("label", {}, "Stem ", pair), element("label", { class: "choice" }, same, "as loud as each other"), begin)
          : element("p", { class: "notice" }, "A run has no stems of this recording."),
        choices.length ? element("div", { class: "cluster" }, this.#count(), beamsplitter.button("Tell", () => this.#tell())) : null);
    }

    #begin(pair, isSameLoudness) {
      const levels = pair.map((signal) => signal.levels?.rms_db);
      const quieter = Math.min(...levels.map((decibels) => decibels ?? 0));
      const trim = (place) => (isSameLoudness && levels.every(isNumber) ? quieter - levels[place] : 0);
      this.pair = pair;
      this.trims = new Map(pair.map((signal, place) => [signal.id, trim(place)]));
      this.#round();
    }

    #round() {
      this.order = crypto.getRandomValues(new Uint8Array(1))[0] % 2 ? [1, 0] : [0, 1];
      const hear = (place) => () => this.#hear(place);
      this.hearButtons = [0, 1].map((place) => beamsplitter.button(`Hear ${place + 1}`, hear(place), { class: "toggle large" }));
      this.hearButtons.push(beamsplitter.button("Hear the mixture", hear(2), { class: "toggle large" }));
      const choose = (label, place) => beamsplitter.button(label, () => this.#choose(place));
      replaceChildren(this.body,
        element("div", { class: "cluster" }, this.hearButtons),
        element("div", { class: "cluster" }, choose("1 is better", 0), choose("No difference", null), choose("2 is better", 1)),
        element("p", { class: "muted" }, "Keys: 1, 2 and 3 switch."),
        element("div", { class: "cluster" }, this.#count(), beamsplitter.button("End, and tell", () => this.#tell())));
      this.room.setBlind({ trims: this.trims, keys: { 1: hear(0), 2: hear(1), 3: hear(2), b: () => this.#hear(this.heard === 0 ? 1 : 0) } });
      this.#hear(0);
    }

    #hear(place) {
      this.heard = place;
      const { player } = this.room;
      if (place === 2) player.setGroup("mixture");
      else player.setSolos([this.pair[this.order[place]].id]);
      this.hearButtons.forEach((button, each) => button.setAttribute("aria-pressed", String(each === place)));
    }

    #choose(place) {
      choices.push({ folder: this.folder, winner: place === null ? null : this.order[place] });
      this.#round();
      this.hearButtons[0].focus();
    }

    #count() {
      return element("p", { class: "count", role: "status" }, `${choices.length} ${choices.length === 1 ? "round" : "rounds"} so far`);
    }

    #tell() {
      this.room.setBlind(null);
      this.room.player.setSolos([]);
      const wins = (place) => choices.filter(({ winner }) => winner === place).length;
      const rows = [
        ...this.runs.slice(0, 2).map((run, place) => [name(run.name), number(wins(place))]),
        ["No difference", number(wins(null))],
      ];
      replaceChildren(this.body,
        beamsplitter.table("What was chosen", ["Run", "Times chosen"], rows),
        element("div", { class: "cluster" },
          beamsplitter.button("Go on", () => this.#invite()),
          beamsplitter.button("Begin anew", () => {
            choices.length = 0;
            this.#invite();
          })));
    }
  }

  Object.assign(beamsplitter, { ComparedRuns, ComparedRecording });
}
