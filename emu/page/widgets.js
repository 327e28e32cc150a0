// ---- widgets.js: small tools for the document ----------------------------------------------------------------------
//
// Text of the guest (paths, names, arguments) reaches the document through textContent and setAttribute alone, never
// as HTML.

const $ = (id) => document.getElementById(id);

/** An element: el("td", {class: "num"}, "text", child...). Functions become listeners. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The colours of the present theme, by the names of the style sheet. */
class Colours {
  constructor() {
    this.refresh();
  }

  refresh() {
    const style = getComputedStyle(document.documentElement);
    this._known = new Map();
    this._style = style;
  }

  get(name) {
    if (!this._known.has(name)) this._known.set(name, this._style.getPropertyValue("--" + name).trim());
    return this._known.get(name);
  }
}

const colours = new Colours();

/** A canvas that is as many device pixels as it shows, whatever the zoom of the browser. */
function prepareCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.textBaseline = "middle";
  return { context, width, height };
}

/** `text`, shortened to `room` pixels (of a path or an address the end counts); empty where nothing sensible fits. */
function fitText(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let keep = Math.floor((text.length * room) / (context.measureText(text).width || 1)) - 1;
  if (keep < 3) return "";
  return /^[/0-9a-f]/.test(text) ? "…" + text.slice(-keep) : text.slice(0, keep) + "…";
}

/** A list of which only the visible rows exist: 100,000 events are forty elements.
 *
 * host: a scrolling element that takes the focus; count(): rows; fill(row, index): put a row's content into an element;
 * choose(index): a row was chosen by mouse or keyboard.
 */
class VirtualList {
  constructor(host, { rowHeight = 22, count, fill, choose, key = null }) {
    Object.assign(this, { host, rowHeight, count, fill, choose });
    this.current = -1;
    this._rows = [];
    this._space = el("div", { class: "rows", role: "presentation" });
    host.replaceChildren(this._space);
    host.addEventListener("scroll", () => this.draw());
    host.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.choose(Number(row.dataset.index), event);
    });
    host.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (key && key(event, this.current)) {
        event.preventDefault();
        return;
      }
      const page = Math.max(1, Math.floor(host.clientHeight / this.rowHeight) - 1);
      const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || !this.count()) return;
      event.preventDefault();
      this.choose(Math.max(0, Math.min(this.count() - 1, Math.max(0, this.current) + step)), event);
    });
    new ResizeObserver(() => this.draw()).observe(host);
  }

  /** Mark a row as the chosen one and bring it into view. */
  select(index) {
    this.current = index;
    if (index >= 0) {
      const { host, rowHeight } = this;
      const top = index * rowHeight;
      if (top < host.scrollTop || top + rowHeight > host.scrollTop + host.clientHeight) {
        host.scrollTop = Math.max(0, top - Math.floor(host.clientHeight / 2));
      }
    }
    this.draw();
  }

  draw() {
    const { host, rowHeight } = this;
    const total = this.count();
    this._space.style.height = `${total * rowHeight}px`;
    const first = Math.max(0, Math.floor(host.scrollTop / rowHeight) - 3);
    const last = Math.min(total, Math.ceil((host.scrollTop + host.clientHeight) / rowHeight) + 3);
    while (this._rows.length < last - first) {
      const row = el("div", { class: "row", role: "option" });
      this._rows.push(row);
      this._space.append(row);
    }
    this._rows.forEach((row, i) => {
      const index = first + i;
      row.hidden = index >= last;
      if (row.hidden) return;
      row.className = "row";
      row.id = `${host.id}-${index}`;
      row.dataset.index = index;
      row.style.transform = `translateY(${index * rowHeight}px)`;
      row.setAttribute("aria-selected", index === this.current);
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-setsize", total);
      this.fill(row, index);
    });
    if (this.current >= first && this.current < last) host.setAttribute("aria-activedescendant", `${host.id}-${this.current}`);
    else host.removeAttribute("aria-activedescendant");
  }
}
