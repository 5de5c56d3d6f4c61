"use strict";

// A long list as a table: a page of it at a time, sorted and searched. Only what is shown is loaded, unless
// an order or a search needs all of it.
{
  const { element, replaceChildren, number, percent } = beamsplitter.text;
  const ENTRIES_PER_PAGE = 50;
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  // Missing values come last in either order.
  function compare(a, b, direction) {
    const isMissing = (value) => value === null || value === undefined;
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return direction * (typeof a === "string" ? collator.compare(a, b) : a - b);
  }

  const folded = (text) => text.normalize("NFC").toLowerCase();

  class ListTable {
    #asked = 0;

    // `columns`: { key, title, value(entry), cell(entry, index), isNumber, note }; `list` has count, range() and all();
    // `searchText(entry)` is what is searched; `accepts(entry, params)` is a further filter, in use where
    // `hasFilter(params)`; `onChange` is given what changes in the address.
    constructor({ caption, noun, emptyText, onChange }) {
      Object.assign(this, { caption, noun, emptyText, onChange });
      this.status = element("p", { class: "count", role: "status" });
      this.table = element("table", {});
      this.scroller = element("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": caption }, this.table);
      this.pager = element("nav", { class: "pager", "aria-label": `Pages of ${caption.toLowerCase()}` });
      this.element = element("div", { class: "list" }, this.status, this.scroller, this.pager);
    }

    async show(list, columns, params) {
      const asked = ++this.#asked;
      const isStale = () => asked !== this.#asked;
      const entries = await this.#chosen(list, columns, params, (share) => {
        if (!isStale() && share < 1) this.status.textContent = `Reading the list: ${percent(share)}`;
      });
      if (isStale()) return;
      const count = entries ? entries.length : list.count;
      const pages = Math.max(1, Math.ceil(count / ENTRIES_PER_PAGE));
      const page = Math.min(pages, Math.max(1, Number.parseInt(params.page, 10) || 1));
      const start = (page - 1) * ENTRIES_PER_PAGE;
      const stop = Math.min(count, start + ENTRIES_PER_PAGE);
      const shown = entries
        ? entries.slice(start, stop)
        : (await list.range(start, stop)).map((entry, index) => ({ entry, index: start + index }));
      if (isStale()) return;
      this.#tellCount(list, count, start, stop);
      this.#fill(columns, params, shown);
      this.#turnPages(page, pages);
    }

    // All entries that are wanted, in their order; null where that is the list as it lies.
    async #chosen(list, columns, params, tell) {
      const column = columns.find(({ key }) => key === params.sort);
      const words = folded(params.q ?? "").split(/\s+/).filter(Boolean);
      if (!column && !words.length && !list.hasFilter?.(params)) return null;
      let entries = (await list.all(tell)).map((entry, index) => ({ entry, index }));
      if (words.length) {
        entries = entries.filter(({ entry }) => {
          const text = folded(list.searchText(entry));
          return words.every((word) => text.includes(word));
        });
      }
      if (list.hasFilter?.(params)) entries = entries.filter(({ entry }) => list.accepts(entry, params));
      if (column) {
        const direction = params.order === "desc" ? -1 : 1;
        entries.sort((a, b) => compare(column.value(a.entry), column.value(b.entry), direction));
      }
      return entries;
    }

    #tellCount(list, count, start, stop) {
      const all = list.count === count ? "" : ` (of ${number(list.count)})`;
      const noun = count === 1 ? this.noun.one : this.noun.many;
      const text = count > ENTRIES_PER_PAGE
        ? `${number(start + 1)} to ${number(stop)} of ${number(count)} ${noun}${all}`
        : `${number(count)} ${noun}${all}`;
      this.status.textContent = count ? text : list.count ? `Nothing matches, of ${number(list.count)} ${this.noun.many}.` : this.emptyText;
      this.scroller.hidden = count === 0;
    }

    #fill(columns, params, shown) {
      const focused = this.table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const head = columns.map((column) => this.#header(column, params));
      const rows = shown.map(({ entry, index }) => element("tr", {}, columns.map((column, place) => element(
        place === 0 ? "th" : "td",
        { scope: place === 0 ? "row" : null, class: column.isNumber ? "number" : column.className },
        column.cell(entry, index),
      ))));
      replaceChildren(this.table,
        element("caption", { class: "unseen" }, this.caption),
        element("thead", {}, element("tr", {}, head)),
        element("tbody", {}, rows));
      if (focused) this.table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }

    #header({ key, title, isNumber, note }, params) {
      const isSorted = params.sort === key;
      const isDescending = isSorted && params.order === "desc";
      const arrow = isSorted ? (isDescending ? " ▼" : " ▲") : "";
      // Numbers begin with the highest; a third press goes back to the order of the list.
      const first = isNumber ? "desc" : "asc";
      const next = !isSorted ? { sort: key, order: first }
        : params.order === first ? { sort: key, order: first === "asc" ? "desc" : "asc" }
          : { sort: null, order: null };
      return element("th", {
        scope: "col", class: isNumber ? "number" : null,
        "aria-sort": isSorted ? (isDescending ? "descending" : "ascending") : null,
      }, element("button", {
        type: "button", "data-key": key, title: note, onclick: () => this.onChange({ ...next, page: null }),
      }, title, element("span", { "aria-hidden": "true" }, arrow)));
    }

    #turnPages(page, pages) {
      this.pager.hidden = pages < 2;
      const held = this.pager.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const turn = (to, label, key) => element("button", {
        type: "button", "data-key": key, "aria-disabled": to < 1 || to > pages || to === page ? "true" : null,
        onclick: (event) => {
          if (event.currentTarget.getAttribute("aria-disabled")) return;
          this.onChange({ page: to === 1 ? null : to });
        },
      }, label);
      const field = element("input", {
        type: "number", min: 1, max: pages, value: page, "aria-label": "Page",
        onchange: (event) => this.onChange({ page: event.target.value }),
      });
      replaceChildren(this.pager,
        turn(1, "First", "first"), turn(page - 1, "Previous", "previous"),
        element("span", {}, "Page ", field, ` of ${number(pages)}`),
        turn(page + 1, "Next", "next"), turn(pages, "Last", "last"));
      if (held) this.pager.querySelector(`[data-key="${held}"]`)?.focus();
    }
  }

  Object.assign(beamsplitter, { ListTable });
}
