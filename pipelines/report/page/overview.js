"use strict";

// A run in numbers, the table of its recordings, and its failures in words.
{
  const {
    NO_VALUE, element, name, path, replaceChildren, isNumber, time, span, number, fixed, level, moment, percent, measure,
    step, facts,
  } = beamsplitter.text;
  const SEARCH_DELAY_MS = 150;
  const REFRESH_MS = 4000;
  const REFRESH_OF_ALL_MS = 30000; // where an order or a search reads all of the list again
  const LABELS_SHOWN = 3;
  const FULL_BAR_DB = 60;

  // A level as a number and a bar.
  function levelCell(decibels) {
    if (decibels === undefined) return NO_VALUE;
    const bar = element("span", { class: "level-bar" });
    const share = decibels === null ? 0 : Math.min(1, Math.max(0, 1 + decibels / FULL_BAR_DB));
    bar.style.width = `${share * 100}%`;
    return element("span", { class: "level" }, level(decibels), element("span", { class: "track", "aria-hidden": "true" }, bar));
  }

  const labelsInOrder = (row) => [...(row.labels ?? [])].sort((a, b) => b.share - a.share);

  function labelsCell(row) {
    const labels = labelsInOrder(row);
    if (!labels.length) return NO_VALUE;
    const shown = labels.slice(0, LABELS_SHOWN).map(({ label, share }) => element(
      "span", { class: "tag" }, name(label), ` ${percent(share)}`));
    const rest = labels.length - shown.length;
    return element("span", { class: "tags" }, shown, rest > 0 ? element("span", { class: "tag" }, `+${rest}`) : null);
  }

  const twoLines = (signal, unit) => element("span", {}, name(signal), element("span", { class: "unit" }, unit));

  function recordingColumns(facts_, linkOf, chosenMeasure) {
    const levels = ["mixture", ...(facts_.stems ?? [])];
    const columns = [
      {
        key: "name", title: "Recording", className: "name", value: (row) => row.name,
        cell: (row, index) => element("a", { href: linkOf(row, index), title: row.name }, path(row.name)),
      },
      {
        key: "duration", title: "Length", isNumber: true, value: (row) => row.duration_s, cell: (row) => time(row.duration_s),
      },
      ...levels.map((signal) => ({
        key: `level:${signal}`, title: twoLines(signal, "dB"), isNumber: true, note: "Level (RMS) in dB re full scale",
        value: (row) => (row.levels?.[signal] === null ? -Infinity : row.levels?.[signal]),
        cell: (row) => levelCell(row.levels?.[signal]),
      })),
    ];
    if (chosenMeasure) {
      for (const stem of facts_.stems ?? []) {
        columns.push({
          key: `score:${stem}`, title: twoLines(stem, measure(chosenMeasure)), isNumber: true,
          value: (row) => row.scores?.[stem]?.[chosenMeasure],
          cell: (row) => fixed(row.scores?.[stem]?.[chosenMeasure], 2),
        });
      }
    }
    if (facts_.has_labels) {
      columns.push({
        key: "labels", title: "Labels", value: (row) => labelsInOrder(row)[0]?.label, cell: labelsCell,
      });
    }
    return columns;
  }

  const failureColumns = [
    { key: "element", title: "Recording", className: "name", value: ({ element: text }) => text, cell: ({ element: text }) => path(text) },
    { key: "step", title: "While", value: (failure) => step(failure.step), cell: (failure) => element("span", { title: failure.step }, step(failure.step)) },
    { key: "message", title: "Why", className: "message", value: (failure) => failure.message, cell: (failure) => name(failure.message, { title: failure.exception }) },
  ];

  function listOfRecordings(rows) {
    return {
      count: rows.count,
      range: (start, stop) => rows.range(start, stop),
      all: (tell) => rows.all(tell),
      searchText: (row) => row.name,
      hasFilter: (params) => Boolean(params.label),
      accepts: (row, params) => (row.labels ?? []).some(({ label }) => label.toLowerCase().includes(params.label.toLowerCase())),
    };
  }

  function listOfFailures(failures) {
    return {
      count: failures.count,
      range: (start, stop) => failures.range(start, stop),
      all: (tell) => failures.all(tell),
      searchText: (failure) => `${failure.element} ${failure.message} ${step(failure.step)}`,
    };
  }

  const figure = (label, value, note) => element("div", {}, element("dt", {}, label), element("dd", { title: note }, value));

  function figures(run) {
    const { counts, audio_s, wall_s, workers, began, ended, updated } = run.facts;
    const shown = [
      figure("Recordings", number(run.rows.count)),
      figure("Failures", number(run.failures.count)),
    ];
    if (isNumber(counts?.skipped) && counts.skipped) shown.push(figure("Done before", number(counts.skipped)));
    if (isNumber(audio_s)) shown.push(figure("Audio", span(audio_s), "worked on in this run"));
    if (isNumber(wall_s)) shown.push(figure("Took", span(wall_s)));
    if (isNumber(audio_s) && wall_s > 0) {
      shown.push(figure("Speed", `${number(audio_s / wall_s, audio_s / wall_s < 10 ? 1 : 0)} × real time`));
    }
    if (isNumber(workers)) shown.push(figure("Workers", number(workers)));
    if (began) shown.push(figure("Began", moment(began)));
    if (ended ?? updated) shown.push(figure(ended ? "Ended" : "Seen", moment(ended ?? updated)));
    return shown;
  }

  function folded(title, value) {
    if (!value || !Object.keys(value).length) return null;
    return element("details", {}, element("summary", {}, title), element("div", { class: "facts" }, facts(value)));
  }

  class Overview {
    #typing = 0;
    #typed = {};
    #timer = 0;

    constructor(main, run, params, address) {
      Object.assign(this, { run, params, address });
      this.heading = element("h1", { tabindex: "-1" });
      this.numbers = element("dl", { class: "numbers" });
      this.details = element("section", { class: "more", "aria-label": "More about the run" });
      const change = (changes) => address.write(changes);
      const words = { caption: "Recordings", noun: { one: "recording", many: "recordings" }, onChange: change };
      this.recordings = new beamsplitter.ListTable({
        ...words, emptyText: run.facts.state === "running" ? "No recording is finished yet." : "There are no recordings.",
      });
      this.failures = new beamsplitter.ListTable({
        caption: "Failures", noun: { one: "failure", many: "failures" }, emptyText: "Nothing failed.", onChange: change,
      });
      replaceChildren(main, this.heading, this.numbers, this.#filters(), this.recordings.element, this.failures.element, this.details);
      document.title = run.facts.job_name ? `${run.facts.job_name} – Beamsplitter` : "Beamsplitter";
      this.#showRun();
      this.ready = this.update(params);
      this.#watch();
    }

    dispose() {
      clearTimeout(this.#typing);
      clearTimeout(this.#timer);
      this.isDisposed = true;
    }

    async update(params) {
      this.params = params;
      const isFailures = params.show === "failed";
      this.statusInputs.forEach((input) => (input.checked = (input.value === "failed") === isFailures));
      for (const [input, value] of [[this.search, params.q], [this.label, params.label]]) {
        if (input && document.activeElement !== input) input.value = value ?? "";
      }
      if (this.measure) this.measure.value = this.#measureOf(params);
      this.recordings.element.hidden = isFailures;
      this.failures.element.hidden = !isFailures;
      for (const input of [this.label, this.measure]) if (input) input.closest("label").hidden = isFailures;
      const { run } = this;
      if (isFailures) {
        await this.failures.show(listOfFailures(run.failures), failureColumns, params);
        return;
      }
      const linkOf = (row, index) => this.address.link({ recording: row.folder, row: index });
      const columns = recordingColumns(run.facts, linkOf, this.#measureOf(params));
      await this.recordings.show(listOfRecordings(run.rows), columns, params);
    }

    #measureOf(params) {
      const measures = this.run.facts.measures ?? [];
      return measures.includes(params.measure) ? params.measure : (measures[0] ?? null);
    }

    #filters() {
      const { run, address } = this;
      const later = (key) => (event) => {
        clearTimeout(this.#typing);
        Object.assign(this.#typed, { [key]: event.target.value, page: null });
        this.#typing = setTimeout(() => {
          const changes = this.#typed;
          this.#typed = {};
          address.write(changes, { replace: true });
        }, SEARCH_DELAY_MS);
      };
      this.search = element("input", { type: "search", oninput: later("q"), autocomplete: "off", spellcheck: "false" });
      this.statuses = ["finished", "failed"].map((show) => element("label", { class: "choice" },
        element("input", {
          type: "radio", name: "show", value: show,
          onchange: () => address.write({ show: show === "failed" ? show : null, page: null, sort: null, order: null }),
        }), element("span", {})));
      this.statusInputs = this.statuses.map((label) => label.firstChild);
      return element("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
        element("fieldset", { class: "choices" }, element("legend", { class: "unseen" }, "Show"), this.statuses),
        element("label", {}, "Search ", this.search),
        run.facts.has_labels ? this.#labelFilter(later("label")) : null,
        (run.facts.measures ?? []).length > 1 ? this.#measureChoice() : null,
      );
    }

    #labelFilter(oninput) {
      const choices = element("datalist", { id: "labels" });
      const fill = async () => {
        const rows = await this.run.rows.all();
        const labels = new Set(rows.flatMap((row) => (row.labels ?? []).map(({ label }) => label)));
        choices.replaceChildren(...[...labels].sort().map((label) => element("option", { value: label })));
      };
      this.label = element("input", { type: "text", list: "labels", oninput, onfocus: fill, autocomplete: "off" });
      return element("label", {}, "Label ", this.label, choices);
    }

    #measureChoice() {
      this.measure = element("select", { onchange: (event) => this.address.write({ measure: event.target.value, sort: null, order: null }) },
        this.run.facts.measures.map((key) => element("option", { value: key }, measure(key))));
      return element("label", {}, "Score ", this.measure);
    }

    #showRun() {
      const { run } = this;
      replaceChildren(this.heading, name(run.facts.job_name ?? "Results"),
        run.facts.state === "running" ? element("span", { class: "badge" }, "running") : null);
      this.numbers.replaceChildren(...figures(run));
      const counts = [run.rows.count, run.failures.count];
      ["Finished", "Failed"].forEach((word, index) => (this.statuses[index].lastChild.textContent = `${word} (${number(counts[index])})`));
      const wereOpen = new Set([...this.details.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
      const { settings, job, versions } = run.facts;
      replaceChildren(this.details, folded("Settings", settings), folded("Job", job), folded("Versions", versions));
      for (const summary of this.details.querySelectorAll("details > summary")) {
        if (wereOpen.has(summary.textContent)) summary.parentElement.open = true;
      }
    }

    // A run that still goes on is looked at again and again.
    #watch() {
      if (this.run.facts.state !== "running") return;
      const readsAll = this.params.q || this.params.sort || this.params.label;
      this.#timer = setTimeout(async () => {
        try {
          const run = await beamsplitter.Run.load(this.run.prefix);
          if (this.isDisposed) return;
          if (run.facts.updated !== this.run.facts.updated || run.rows.count !== this.run.rows.count || run.facts.state !== this.run.facts.state) {
            this.run = run;
            this.#showRun();
            await this.update(this.params);
          }
        } catch {
          // Just being written, or away for a moment: the next look shows it.
        }
        if (!this.isDisposed) this.#watch();
      }, readsAll ? REFRESH_OF_ALL_MS : REFRESH_MS);
    }
  }

  Object.assign(beamsplitter, { Overview, levelCell });
}
