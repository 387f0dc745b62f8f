// An editor of the history or of the candidates: chips and a combobox, or two columns as text.

class Editor {
  constructor(part, title, hint, changed) {
    Object.assign(this, { part, title, changed, current: 0, wrong: null });
    const tool = (label, text, act) => el("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    this.earlier = tool(`Move earlier in ${part}`, "←", () => this.move(-1));
    this.later = tool(`Move later in ${part}`, "→", () => this.move(1));
    this.clear = el("button", { type: "button", "aria-label": `Clear ${part}`, onclick: () => this.set([]) }, "Clear");
    this.asText = el(
      "button",
      { type: "button", "aria-pressed": "false", "aria-label": `Edit ${part} as text`, onclick: () => this.turn() },
      "Text",
    );
    this.count = el("small");
    this.input = el("input", {
      id: `${part}-input`,
      autocomplete: "off",
      spellcheck: "false",
      "aria-label": `Add to ${part}`,
      oninput: () => this.search(),
      onkeydown: (event) => this.type(event),
      onpaste: (event) => this.paste(event),
      onblur: () => this.close(),
    });
    this.options = el("ul", { id: `${part}-options`, class: "options", role: "listbox", "aria-label": `Found for ${part}`, hidden: true });
    this.chips = el("ol", { class: "chips", "aria-label": title, onkeydown: (event) => this.walk(event) });
    this.adding = el("div", {}, el("div", { class: "add" }, this.input, this.options), this.chips);
    this.columns = ["ids", "tags"].map((name) =>
      el("textarea", { id: `${part}-${name}`, spellcheck: "false", oninput: () => this.readColumns() }),
    );
    this.text = el(
      "div",
      { class: "text", hidden: true },
      ...this.columns.map((field) => el("label", {}, field.id.replace("-", "."), field)),
    );
    const heading = el("h3", {}, `${title} `, this.count, el("small", { class: "hint" }, ` · ${hint}`));
    const tools = el("div", { class: "tools" }, this.earlier, this.later, this.clear, this.asText);
    $(part).className = "editor";
    $(part).append(el("div", { class: "head" }, heading, tools), this.adding, this.text);
    this.look = debounced(150, (query) => this.find(query));
  }

  get items() {
    return asked[this.part];
  }

  set(items) {
    asked[this.part] = items;
    this.blame(undefined);
    this.changed();
  }

  add(items) {
    this.set([...this.items, ...items]);
    this.chips.scrollTop = this.chips.scrollHeight;
    if (items.length) announce(`${items.length === 1 ? nameOf(items[0].id, items[0].tag) : items.length} added to ${this.part}`);
  }

  remove(at) {
    announce(`${nameOf(this.items[at].id, this.items[at].tag)} removed from ${this.part}`);
    this.set(this.items.toSpliced(at, 1));
    if (this.items.length) this.focus(Math.min(at, this.items.length - 1));
    else this.input.focus();
  }

  move(by, from = this.current, to = from + by) {
    if (!(from in this.items && to in this.items)) return;
    const items = [...this.items];
    items.splice(to, 0, ...items.splice(from, 1));
    this.current = to;
    this.set(items);
    announce(`${nameOf(items[to].id, items[to].tag)}: ${to + 1} of ${items.length}`);
  }

  focus(at) {
    this.current = at;
    this.mark();
    this.chips.children[at]?.firstChild.focus();
  }

  // Chips

  render() {
    this.current = Math.max(0, Math.min(this.current, this.items.length - 1));
    const focused = this.chips.contains(document.activeElement);
    this.chips.replaceChildren(...this.items.map((item, at) => this.chip(item, at)));
    if (!this.text.contains(document.activeElement)) this.writeColumns();
    this.count.textContent = this.items.length;
    this.clear.disabled = !this.items.length;
    this.mark();
    if (focused) this.focus(this.current);
    const catalog = server.catalog;
    this.input.placeholder = catalog ? "Search titles, or enter: id tag" : "id tag, then Enter; or paste a list";
    for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-expanded", "false"], ["aria-controls", this.options.id]])
      if (catalog) this.input.setAttribute(name, value);
  }

  chip(item, at) {
    const title = known.get(item.id)?.title;
    const tag = tagOf(item);
    const details = [title && item.id && `id ${item.id}`, item.id && tag && `tag ${tag}`].filter(Boolean).join(" · ");
    const name = nameOf(item.id, tag);
    const label = [name, details.replace(" · ", ", "), `${at + 1} of ${this.items.length}`].filter(Boolean).join(", ");
    const wrong = this.wrong?.at === at;
    return el(
      "li",
      {
        class: wrong ? "chip wrong" : "chip",
        draggable: "true",
        ondragstart: (event) => {
          this.dragged = at;
          event.dataTransfer.effectAllowed = "move";
          event.dataTransfer.setData("text/plain", item.id);
        },
        ondragover: (event) => {
          if (this.dragged === undefined) return;
          event.preventDefault();
          event.currentTarget.classList.add("over");
        },
        ondragleave: (event) => event.currentTarget.classList.remove("over"),
        ondragend: () => (this.dragged = undefined),
        ondrop: (event) => {
          event.preventDefault();
          if (this.dragged !== undefined) this.move(0, this.dragged, at);
        },
      },
      el(
        "button",
        { type: "button", class: "name", "aria-label": wrong ? `${label}, ${this.wrong.message}` : label, title: `${name}${details && ` · ${details}`}`, onfocus: () => this.select(at) },
        name,
        ...(title ? [] : [" ", el("small", {}, details)]),
      ),
      el("button", { type: "button", class: "remove", tabindex: "-1", "aria-label": `Remove ${name}`, onclick: () => this.remove(at) }, "×"),
    );
  }

  select(at) {
    this.current = at;
    this.mark();
  }

  /** One chip takes the tab stop; the arrows walk to the others. */
  mark() {
    [...this.chips.children].forEach((chip, at) => {
      chip.firstChild.tabIndex = at === this.current ? 0 : -1;
      chip.firstChild.setAttribute("aria-keyshortcuts", "Delete Alt+ArrowLeft Alt+ArrowRight");
    });
    this.earlier.disabled = this.current <= 0;
    this.later.disabled = this.current >= this.items.length - 1;
  }

  walk(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const end = { Home: 0, End: this.items.length - 1 }[event.key];
    if (by && event.altKey) this.move(by);
    else if (by) this.focus(Math.max(0, Math.min(this.current + by, this.items.length - 1)));
    else if (end !== undefined) this.focus(end);
    else if (event.key === "Delete" || event.key === "Backspace") this.remove(this.current);
    else return;
    event.preventDefault();
  }

  // Text

  turn() {
    const text = this.text.hidden;
    this.text.hidden = !text;
    this.adding.hidden = text;
    this.earlier.hidden = this.later.hidden = text;
    this.asText.setAttribute("aria-pressed", text);
    if (text) this.writeColumns();
    else nameItems().then(() => this.render());
  }

  writeColumns() {
    this.columns[0].value = this.items.map((item) => item.id).filter(Boolean).join(", ");
    this.columns[1].value = this.items.map(tagOf).filter(Boolean).join(", ");
  }

  readColumns() {
    this.set(itemsOf(...this.columns.map((field) => readColumn(field.value))));
  }

  // Adding

  type(event) {
    const count = this.options.querySelectorAll("[role=option]").length;
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) this.take(this.active ?? -1);
    else if (event.key === "ArrowDown" && count) this.activate(((this.active ?? -1) + 1) % count);
    else if (event.key === "ArrowUp" && count) this.activate(((this.active ?? count) - 1 + count) % count);
    else if (event.key === "Escape" && !this.options.hidden) this.close();
    else return;
    event.preventDefault();
  }

  take(at) {
    if (at >= 0) this.add([{ id: this.found[at].id, tag: "" }]);
    else if (!this.input.value.trim()) return;
    else if (server.catalog && /[^\d\s,;:-]/.test(this.input.value) && this.found?.length) return this.activate(0);
    else this.add(readItems(this.input.value));
    this.input.value = "";
    this.close();
    nameItems().then(() => this.render());
  }

  paste(event) {
    const text = event.clipboardData.getData("text");
    if (!/[\n,]/.test(text.trim())) return;
    event.preventDefault();
    this.add(readItems(text));
    nameItems().then(() => this.render());
  }

  search() {
    const query = this.input.value.trim();
    if (server.catalog && query) this.look(query);
    else this.close();
  }

  async find(query) {
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      const found = await askCatalog({ query, limit: 20 }, this.asking.signal);
      if (query === this.input.value.trim() && document.activeElement === this.input) this.open(found);
    } catch {
      this.close(); // another search has begun, or the server is away: pressing Score says so
    }
  }

  open(found) {
    this.found = found;
    this.active = null;
    const option = ({ id, tag, title }, at) =>
      el(
        "li",
        { id: `${this.options.id}-${at}`, role: "option", "aria-selected": "false", onmousedown: (event) => (event.preventDefault(), this.take(at)) },
        el("span", {}, title || `id ${id}`),
        el("small", {}, `id ${id} · tag ${tag}`),
      );
    const none = el("li", { class: "quiet", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "Nothing found");
    this.options.replaceChildren(...(found.length ? found.map(option) : [none]));
    if (!found.length) none.removeAttribute("id");
    this.options.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    announce(`${found.length} found`);
  }

  activate(at) {
    if (!this.found.length) return;
    this.active = at;
    [...this.options.children].forEach((option, other) => option.setAttribute("aria-selected", other === at));
    this.input.setAttribute("aria-activedescendant", this.options.children[at].id);
    this.options.children[at].scrollIntoView({ block: "nearest" });
  }

  close() {
    this.found = [];
    this.active = null;
    this.options.hidden = true;
    this.input.removeAttribute("aria-activedescendant");
    if (server.catalog) this.input.setAttribute("aria-expanded", "false");
  }

  // Errors

  /** Show where the API found something wrong: `ids[3]`, `tags`, or the whole part. */
  blame(path, message) {
    const [, column, index] = path?.match(/^(ids|tags)?(?:\[(\d+)\])?$/) ?? [];
    const key = column === "tags" ? (item) => tagOf(item) : (item) => item.id;
    let left = Number(index ?? -1);
    const at = index === undefined ? -1 : this.items.findIndex((item) => key(item) && left-- === 0);
    this.wrong = path === undefined ? null : { at, message };
    $(this.part).classList.toggle("wrong-part", path !== undefined && at < 0);
    this.columns.forEach((field, which) =>
      field.setAttribute("aria-invalid", path !== undefined && (!column || which === (column === "tags" ? 1 : 0))),
    );
    this.render();
    if (at >= 0) this.chips.children[at].scrollIntoView({ block: "nearest" });
  }
}
