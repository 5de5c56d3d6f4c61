"use strict";

// One recording: its sound and pictures, its scores, labels, choruses and files, and what made them.
{
  const {
    element, name, replaceChildren, time, fixed, number, size, percent, measure, moment, facts,
  } = beamsplitter.text;
  const SPANS_LISTED = 200;
  const COLOURS = 6;
  const REPORT_FORMAT = 1;

  function section(title, ...content) {
    return element("section", {}, element("h2", {}, title), content);
  }

  // A column is of numbers unless `isText(place)`.
  function table(caption, head, rows, isText = (place) => place === 0) {
    const kind = (place) => (isText(place) ? null : "number");
    return element("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": caption },
      element("table", {},
        element("caption", { class: "unseen" }, caption),
        element("thead", {}, element("tr", {}, head.map((title, place) => element("th", { scope: "col", class: kind(place) }, title)))),
        element("tbody", {}, rows.map((cells) => element("tr", {}, cells.map((cell, place) => element(
          place ? "td" : "th", { scope: place ? null : "row", class: kind(place) }, cell)))))));
  }

  // Labels and choruses as marks of the axis: each label has a colour, by its first appearance.
  function marksOf(labels, choruses) {
    const known = [...new Set(labels.map(({ label }) => label))];
    return [
      ...choruses.map(({ start_s, duration_s }) => ({
        start_s, end_s: start_s + duration_s, text: "chorus", kind: "chorus", colour: 0,
      })),
      ...labels.map(({ start_s, end_s, label }) => ({
        start_s, end_s, text: label, kind: "label", colour: 1 + (known.indexOf(label) % (COLOURS - 1)),
      })),
    ];
  }

  function spanList(title, spans, listen) {
    if (!spans.length) return null;
    const items = spans.slice(0, SPANS_LISTED).map(({ start_s, end_s, text, note }) => {
      const times = `${time(start_s, 1)} to ${time(end_s, 1)}`;
      const control = listen
        ? beamsplitter.button(times, () => listen({ start_s, end_s }), { "aria-label": `Loop ${text}, ${times}` })
        : element("span", {}, times);
      return element("li", {}, control, " ", name(text), note ? element("span", { class: "muted" }, ` ${note}`) : null);
    });
    const rest = spans.length - items.length;
    return element("details", { open: spans.length <= 12 },
      element("summary", {}, `${title} (${number(spans.length)})`),
      element("ol", { class: "spans" }, items),
      rest > 0 ? element("p", { class: "muted" }, `and ${number(rest)} more, which labels.json holds.`) : null);
  }

  function noteOf({ confidence, candidate }) {
    const words = [];
    if (typeof confidence === "number") words.push(percent(confidence));
    if (candidate) words.push(`perhaps ${candidate}`);
    return words.join(", ");
  }

  function scoreTable(scores, title = "Scores") {
    const stems = Object.keys(scores ?? {});
    if (!stems.length) return null;
    const measures = [...new Set(stems.flatMap((stem) => Object.keys(scores[stem])))];
    return section(title, table(title, ["Stem", ...measures.map(measure)],
      stems.map((stem) => [name(stem), ...measures.map((key) => fixed(scores[stem][key], 2))])));
  }

  function shareTable(labels) {
    if (!labels?.length) return null;
    return table("Shares of labels", ["Label", "Share"], labels.map(({ label, share }) => [name(label), percent(share)]));
  }

  // Those that lie in the recording's folder.
  const filesOf = (manifest) => (manifest?.files ?? []).filter(({ name: path }) => !path.split("/").includes(".."));

  function downloads(run, folder, manifest) {
    const files = filesOf(manifest).filter((file) => file.branch !== "report");
    if (!run.facts.files_here || !files.length) return null;
    return section("Files", element("ul", { class: "files" }, files.map((file) => element("li", {},
      element("a", { href: run.address(`${folder}/${file.name}`), download: file.name.split("/").at(-1) }, name(file.name)),
      element("span", { class: "muted" }, ` ${size(file.size_bytes)}`)))));
  }

  function plots(run, folder, manifest, isOpen) {
    const pictures = filesOf(manifest).filter((file) => file.branch === "plots" && /\.(png|jpe?g|webp|svg)$/i.test(file.name));
    if (!run.facts.files_here || !pictures.length) return null;
    const shown = pictures.map((file) => element("figure", {},
      element("img", { src: run.address(`${folder}/${file.name}`), loading: "lazy", alt: `Spectrogram: ${file.name}` }),
      element("figcaption", {}, name(file.name))));
    return element("details", { open: isOpen }, element("summary", {}, "Plots"), element("div", { class: "plots" }, shown));
  }

  // The stems by the browser's own players, where the page has no sound of its own, or can't decode it.
  function plainPlayers(run, folder, manifest, why) {
    const stems = filesOf(manifest).filter((file) => file.branch === "stems" || file.stem);
    if (!run.facts.files_here || !stems.length) return element("p", { class: "notice" }, why);
    return element("section", { class: "plain" }, element("p", { class: "notice" }, why), stems.map((file) => element(
      "figure", {}, element("figcaption", {}, name(file.stem ?? file.name)),
      element("audio", { controls: true, preload: "none", src: run.address(`${folder}/${file.name}`), "aria-label": file.stem ?? file.name }))));
  }

  function summary(row, report, manifest) {
    const input = manifest?.input ?? {};
    const rate = report?.sample_rate ?? input.sample_rate;
    const channels = report?.channels ?? input.channels;
    const made = Object.values(manifest?.branches ?? {}).map((branch) => branch.made).filter(Boolean).sort().at(-1);
    const separator = manifest?.branches?.stems?.settings?.separator;
    const words = [
      time(report?.duration_s ?? row.duration_s, 1),
      rate ? `${number(rate / 1000, 1)} kHz` : null,
      channels ? (channels === 1 ? "mono" : channels === 2 ? "stereo" : `${channels} channels`) : null,
      input.codec ?? null,
      separator ? `by ${separator}` : null,
      made ? moment(made) : null,
    ];
    return element("p", { class: "summary" }, words.filter(Boolean).map((word) => element("span", {}, name(word))));
  }

  function checkReport(report) {
    if (report && report.format !== REPORT_FORMAT) {
      throw new Error(`The data of this recording have format ${report.format}, and this page reads ${REPORT_FORMAT}: build the page again.`);
    }
    return report;
  }

  // Raw chunks for the player and for drawing alike: those around the playhead and in view.
  function chunkLoader(run, folder) {
    const kept = new beamsplitter.Kept(5, (chunk) => run.loadChunk(folder, chunk));
    return (chunk) => kept.get(chunk);
  }

  class RecordingView {
    constructor(main, run, params, address) {
      Object.assign(this, { main, run, address, folder: params.recording });
      this.status = element("p", { class: "waiting", role: "status" }, "Loading the recording …");
      this.heading = element("h1", { tabindex: "-1" }, name(params.recording));
      replaceChildren(main, this.#navigation(null), this.heading, this.status);
      document.title = `${params.recording} – Beamsplitter`;
      this.ready = this.#load(params);
    }

    dispose() {
      this.isDisposed = true;
      this.room?.dispose();
    }

    // The address has another time: a link to a moment of what is shown.
    update(params) {
      const start_s = Number(params.t);
      if (this.room && Number.isFinite(start_s) && params.t !== this.told) this.player.seek(start_s);
    }

    get player() {
      return this.room?.player;
    }

    async #load(params) {
      const { run, folder } = this;
      const found = await run.find(folder, Number.parseInt(params.row, 10), (share) => {
        this.status.textContent = `Looking for the recording: ${percent(share)}`;
      });
      if (this.isDisposed) return;
      if (!found) {
        this.status.textContent = "This run has no such recording.";
        return;
      }
      const { row, index } = found;
      // An address has no bytes of names that are no text.
      this.folder = row.folder;
      const [recordingFacts, report] = await Promise.all([
        run.recordingFacts.range(index, index + 1).then(([first]) => first ?? {}),
        row.page ? run.loadReport(row.folder).then(checkReport) : null,
      ]);
      if (this.isDisposed) return;
      this.#show(row, index, recordingFacts, report, params);
    }

    #show(row, index, recordingFacts, report, params) {
      const { run, folder, main } = this;
      const { manifest, labels = [], choruses = [] } = recordingFacts;
      replaceChildren(this.heading, name(row.name));
      document.title = `${row.name} – Beamsplitter`;
      this.sound = element("div", {});
      this.fallback = element("div", { role: "alert" });
      const hasSound = Boolean(report?.audio);
      if (hasSound) {
        this.#openRoom(report, marksOf(labels, choruses), manifest, params);
      } else {
        this.sound.append(plainPlayers(run, folder, manifest, "This page was made without sound of its own for this recording."));
      }
      const listen = hasSound ? (range) => this.room?.loopOver(range) : null;
      replaceChildren(main,
        this.#navigation(index), this.heading, summary(row, report, manifest), this.sound, this.fallback,
        spanList("Choruses", choruses.map(({ start_s, duration_s }) => ({ start_s, end_s: start_s + duration_s, text: "chorus" })), listen),
        element("div", { class: "beside" }, labels.length || row.labels?.length ? section("Labels", shareTable(row.labels),
          spanList("Stretches", labels.map((label) => ({ ...label, text: label.label, note: noteOf(label) })), listen)) : null,
          scoreTable(row.scores), downloads(run, folder, manifest)),
        plots(run, folder, manifest, !hasSound),
        manifest ? element("details", {}, element("summary", {}, "What made it"), element("div", { class: "facts" }, facts(manifest))) : null,
      );
    }

    #openRoom(report, marks, manifest, params) {
      const { run, folder } = this;
      const loadChunk = chunkLoader(run, folder);
      const group = (id) => (id === "mixture" ? "mixture" : "stems");
      const stems = report.signals.filter((id) => id !== "mixture");
      const player = new beamsplitter.Player({
        duration_s: report.duration_s, chunk_s: report.chunk_s, loadChunk,
        signals: report.signals.map((id) => ({ id, group: group(id) })),
      });
      const groups = new Map();
      if (report.signals.includes("mixture")) groups.set("mixture", "Mixture");
      if (stems.length) groups.set("stems", "Sum of stems");
      this.room = new beamsplitter.ListeningRoom({
        player, report, marks, groups, loadChunk,
        signals: report.signals.map((id) => ({
          id, label: id, levels: report.levels?.[id], peaks: report.peaks?.[id], picture: report.pictures?.[id],
          hertz: report.spectrogram?.hertz?.[id],
        })),
        start_s: Number(params.t) || 0,
        onMove: (position_s) => this.#keep(position_s),
        onFailure: (error) => this.#failed(error, manifest),
      });
      this.sound.append(this.room.element);
    }

    #keep(position_s) {
      this.told = position_s >= 0.005 ? position_s.toFixed(2) : null;
      this.address.note({ t: this.told });
    }

    #failed(error, manifest) {
      replaceChildren(this.fallback, plainPlayers(this.run, this.folder, manifest, beamsplitter.whyNoSound(error)));
    }

    #navigation(index) {
      const turn = (to, label) => {
        const link = element("a", { href: "#" }, label);
        link.addEventListener("click", async (event) => {
          event.preventDefault();
          const [row] = await this.run.rows.range(to, to + 1);
          if (row) this.address.open({ recording: row.folder, row: to });
        });
        return link;
      };
      return element("nav", { class: "path", "aria-label": "Recordings" },
        element("a", { href: this.address.linkToList() }, "All recordings"),
        index !== null && index > 0 ? turn(index - 1, "Previous") : null,
        index !== null && index + 1 < this.run.rows.count ? turn(index + 1, "Next") : null);
    }
  }

  Object.assign(beamsplitter, {
    RecordingView, section, table, marksOf, chunkLoader, checkReport, scoreTable, plainPlayers,
  });
}
