"use strict";

// What the page shows follows the part of its address behind the `#`: links to it can be sent, and "back" works.
{
  const { element, replaceChildren } = beamsplitter.text;
  const NOTE_DELAY_MS = 400;
  // What says which view it is, rather than how that is shown.
  const VIEW_KEYS = ["recording"];

  const main = document.getElementById("main");

  class Address {
    #noting = 0;
    #list = "#";

    constructor(onChange) {
      this.onChange = onChange;
      this.#keepList();
      addEventListener("hashchange", () => this.#arrive());
    }

    get params() {
      return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    }

    link(params) {
      const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
      return "#" + new URLSearchParams(given);
    }

    // The table as it was last seen: its search, order and page.
    linkToList() {
      return this.#list;
    }

    write(changes, { replace = false } = {}) {
      clearTimeout(this.#noting);
      const address = this.link({ ...this.params, ...changes });
      if (replace) history.replaceState(null, "", address);
      else history.pushState(null, "", address);
      this.#arrive();
    }

    open(params) {
      clearTimeout(this.#noting);
      history.pushState(null, "", this.link(params));
      this.#arrive();
    }

    // Keep in the address what need not be shown anew, such as the time. Browsers count how often.
    note(changes) {
      clearTimeout(this.#noting);
      this.#noting = setTimeout(() => history.replaceState(null, "", this.link({ ...this.params, ...changes })), NOTE_DELAY_MS);
    }

    #arrive() {
      clearTimeout(this.#noting);
      this.#keepList();
      this.onChange(this.params);
    }

    #keepList() {
      const { params } = this;
      if (!VIEW_KEYS.some((key) => params[key])) this.#list = location.hash || "#";
    }
  }

  function tellError(error) {
    console.warn(error);
    replaceChildren(main, element("h1", { tabindex: "-1" }, "This can’t be shown"),
      element("p", { class: "notice", role: "alert" }, error.message),
      element("p", {}, element("a", { href: "#" }, "All recordings")));
  }

  // Keep the promise of a view: what goes wrong on the way is told in its place.
  const watched = (view) => view.ready?.catch((error) => view === beamsplitter.shown && tellError(error));

  async function start() {
    const run = await beamsplitter.Run.load("");
    let key = null;
    let scrolled = 0;
    const address = new Address(show);

    function make(params) {
      const runs = run.facts.compare;
      if (runs) {
        return params.recording
          ? new beamsplitter.ComparedRecording(main, run, params, address)
          : new beamsplitter.ComparedRuns(main, run, params, address);
      }
      return params.recording
        ? new beamsplitter.RecordingView(main, run, params, address)
        : new beamsplitter.Overview(main, run, params, address);
    }

    function show(params) {
      const asked = VIEW_KEYS.map((name) => params[name] ?? "").join("\n");
      if (asked === key && beamsplitter.shown) {
        Promise.resolve(beamsplitter.shown.update(params)).catch(tellError);
        return;
      }
      const isFirst = key === null;
      if (key === "") scrolled = scrollY;
      key = asked;
      beamsplitter.shown?.dispose();
      try {
        beamsplitter.shown = make(params);
      } catch (error) {
        beamsplitter.shown = null;
        tellError(error);
        return;
      }
      const view = beamsplitter.shown;
      watched(view);
      if (isFirst) return;
      // Where the keyboard and a screen reader go on.
      main.querySelector("h1")?.focus({ preventScroll: true });
      if (asked === "") view.ready?.then(() => scrollTo(0, scrolled));
      else scrollTo(0, 0);
    }

    show(address.params);
  }

  start().catch(tellError);
}
