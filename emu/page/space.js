// ---- space.js: the address space, drawn to scale -------------------------------------------------------------------
//
// The place of an address on the strip has two steps. A "measure" gives each address a distance from the start: to
// scale that is its page number; with gaps folded, free space counts little, so that areas (which stay to scale with
// each other) can be seen side by side in a space that is all but empty. The window [from, to) of distances that is
// shown then becomes pixels.

const PERMISSION_COLOURS = (flags) => (flags & VM.EXEC ? "area-x" : flags & VM.WRITE ? "area-w" : flags & VM.READ ? "area-r" : "area-n");

const COLUMN = 2; // pixels

class SpaceView {
  constructor(app) {
    this.app = app;
    this.canvas = $("space");
    this.folded = true;
    this.from = 0; // the window; `to` 0: everything
    this.to = 0;
    this.space = -1;
    this._listen();
  }

  // -- measure

  /** Pieces [address, end, distance, distance of the end], in order, for the whole drawn range. */
  _measure() {
    const { run } = this.app;
    const areas = run.areas(this.space);
    const page = run.pageSize;
    if (this._measured && this._measured.areas === areas && this._measured.folded === this.folded) return this.pieces;
    this._measured = { areas, folded: this.folded };
    const pieces = [];
    if (!areas.length) return pieces;
    const used = areas.reduce((sum, area) => sum + (area.end - area.start) / page, 0);
    const fold = Math.max(1, (used * 0.3) / areas.length);
    let distance = 0;
    let at = this.folded ? areas[0].start : 0;
    const add = (end, length) => {
      pieces.push([at, end, distance, distance + length]);
      distance += length;
      at = end;
    };
    for (const area of areas) {
      if (area.start > at) add(area.start, this.folded ? Math.min((area.start - at) / page, fold) : (area.start - at) / page);
      add(area.end, (area.end - area.start) / page);
    }
    const top = run.head.task_size || 2 ** Math.max(47, Math.ceil(Math.log2(at)));
    if (!this.folded && at < top) add(top, (top - at) / page);
    return pieces;
  }

  distanceOf(address) {
    const pieces = this.pieces;
    if (!pieces.length || address <= pieces[0][0]) return 0;
    let low = 0;
    let high = pieces.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pieces[middle][1] <= address) low = middle + 1;
      else high = middle;
    }
    const [start, end, from, to] = pieces[low];
    return from + (Math.min(address, end) - start) * ((to - from) / (end - start));
  }

  addressOf(distance) {
    const piece = this.pieces.find(([, , , to]) => distance <= to) || this.pieces[this.pieces.length - 1];
    if (!piece) return 0;
    const [start, end, from, to] = piece;
    return start + Math.max(0, distance - from) * ((end - start) / (to - from));
  }

  get total() {
    return this.pieces.length ? this.pieces[this.pieces.length - 1][3] : 1;
  }

  // -- the window

  show(from, to) {
    const total = this.total;
    const width = Math.min(total, Math.max(to - from, 2));
    this.from = Math.max(0, Math.min(from, total - width));
    this.to = this.from + width;
    if (width >= total) this.from = this.to = 0;
    this.draw();
  }

  /** Zoom by a factor around a place, 0 to 1 of the window's width. */
  zoom(factor, around = 0.5) {
    const [from, to] = this.window();
    const centre = from + (to - from) * around;
    this.show(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }

  pan(part) {
    const [from, to] = this.window();
    this.show(from + (to - from) * part, to + (to - from) * part);
  }

  window() {
    return this.to > this.from ? [this.from, Math.min(this.to, this.total)] : [0, this.total];
  }

  /** Show one area with a little of its surroundings. */
  fit(area) {
    const [from, to] = [this.distanceOf(area.start), this.distanceOf(area.end)];
    const margin = Math.max(1, (to - from) * 0.15);
    this.show(from - margin, to + margin);
  }

  setFolded(folded) {
    this.folded = folded;
    this.from = this.to = 0;
    $("fold").setAttribute("aria-pressed", String(!folded));
    this.draw();
  }

  // -- drawing

  draw() {
    const { run } = this.app;
    this.space = this.app.space;
    this.pieces = this._measure();
    const { context, width, height } = prepareCanvas(this.canvas);
    const areas = run.areas(this.space);
    const [from, to] = this.window();
    this.scale = width / (to - from);
    this._x = (address) => (this.distanceOf(address) - from) * this.scale;
    context.font = "11px system-ui, sans-serif";
    if (!areas.length) {
      context.fillStyle = colours.get("muted");
      context.font = "13px system-ui, sans-serif";
      context.fillText(this.app.run.at < 0 ? "No address space yet." : "This event's address space has no areas.", 12, height / 2);
      this.canvas.setAttribute("aria-label", "Address space: no areas");
      return;
    }
    this._overview(context, width, areas, from, to);
    const top = 46;
    const boxHeight = height - top - 40;
    for (const area of areas) this._area(context, area, top, boxHeight, width);
    this._counts = new Map();
    for (const area of areas) this._pages(context, area, top + boxHeight - 26, 20, width);
    this._columns(context, top + boxHeight - 44, 38);
    this._marks(context, areas, top, boxHeight, width);
    this._axis(context, width, height, top + boxHeight, from, to);
    this.canvas.setAttribute("aria-label", `Address space with ${plural(areas.length, "area")}; shown ${hex(Math.floor(this.addressOf(from)))} to ${hex(Math.floor(this.addressOf(to)))}`);
  }

  /** The thin strip on top: everything, and a frame around what is shown below. */
  _overview(context, width, areas, from, to) {
    const scale = width / this.total;
    context.fillStyle = colours.get("sunken");
    context.fillRect(0, 0, width, 12);
    for (const area of areas) {
      const x = this.distanceOf(area.start) * scale;
      context.fillStyle = colours.get(PERMISSION_COLOURS(area.flags) + "-line");
      context.fillRect(x, 2, Math.max(1, (this.distanceOf(area.end)) * scale - x), 8);
    }
    context.strokeStyle = colours.get("accent");
    context.lineWidth = 2;
    context.strokeRect(Math.min(width - 4, from * scale) + 1, 1, Math.max(3, (to - from) * scale - 2), 10);
  }

  _area(context, area, top, height, width) {
    const x0 = this._x(area.start);
    const x1 = Math.max(x0 + 2, this._x(area.end));
    if (x1 < 0 || x0 > width) return;
    const [left, right] = [Math.max(-2, x0), Math.min(width + 2, x1)];
    const colour = PERMISSION_COLOURS(area.flags);
    context.fillStyle = colours.get(colour);
    context.fillRect(left, top, right - left, height);
    context.strokeStyle = colours.get(colour + "-line");
    context.lineWidth = 1;
    if (right - left > 3) context.strokeRect(left + 0.5, top + 0.5, right - left - 1, height - 1);
    const room = right - Math.max(0, left) - 10;
    if (room < 24) return;
    context.fillStyle = colours.get("ink");
    const x = Math.max(0, left) + 5;
    context.font = "600 11px system-ui, sans-serif";
    context.fillText(fitText(context, area.name || "anonymous", room), x, top + 12);
    context.font = "11px ui-monospace, monospace";
    context.fillStyle = colours.get("muted");
    const texts = [`${permissions(area.flags)} ${size(area.end - area.start)}`, permissions(area.flags)];
    context.fillText(texts.find((text) => context.measureText(text).width <= room) || "", x, top + 27);
  }

  /** One box a page, coloured by its state. */
  _pages(context, area, top, height, width) {
    const { run } = this.app;
    const x0 = this._x(area.start);
    const x1 = this._x(area.end);
    if (x1 < 0 || x0 > width) return;
    const pixels = (x1 - x0) / ((area.end - area.start) / run.pageSize); // of one page
    const start = x0 < 0 ? area.start + Math.floor(-x0 / pixels) * run.pageSize : area.start;
    const end = x1 > width ? area.end - Math.floor((x1 - width) / pixels) * run.pageSize : area.end;
    if (pixels < 2) {
      this._count(area, start, end, pixels, x0);
      return;
    }
    run.eachLeaf(this.space, start, end, (i, address, low, high) => {
      const state = run.pageState(low, high);
      const x = x0 + ((address - area.start) / run.pageSize) * pixels;
      const w = (run.pageBytes(low, high) / run.pageSize) * pixels;
      const gap = w > 5 ? 1 : 0;
      context.fillStyle = colours.get("page-" + state);
      context.fillRect(x + gap, top, w - gap, height);
      if (w <= 8) return;
      context.fillStyle = colours.get("panel"); // marks, so that colour is not the only sign
      if (state === "zero") context.fillRect(x + w / 2 - 1.5, top + height / 2 - 1.5, 4, 4);
      if (state === "shared") {
        context.fillRect(x + gap + 2, top + 4, w - gap - 4, 2);
        context.fillRect(x + gap + 2, top + height - 6, w - gap - 4, 2);
      }
    });
  }

  /** Pages too narrow to be drawn one by one are counted, by columns of two pixels and by state. */
  _count(area, start, end, pixels, x0) {
    const { run } = this.app;
    run.eachLeaf(this.space, start, end, (i, address, low, high) => {
      const first = Math.floor((x0 + ((address - area.start) / run.pageSize) * pixels) / COLUMN);
      const pages = run.pageBytes(low, high) / run.pageSize;
      const columns = Math.max(1, Math.round((pages * pixels) / COLUMN)); // more than one: a huge page
      const state = run.pageState(low, high);
      for (let column = first; column < first + columns; column++) {
        if (!this._counts.has(column)) this._counts.set(column, {});
        const counts = this._counts.get(column);
        counts[state] = (counts[state] || 0) + pages / columns;
      }
    });
  }

  /** Each column as high as its part that is resident. */
  _columns(context, top, height) {
    const capacity = COLUMN / this.scale; // pages
    for (const [column, counts] of this._counts) {
      let y = top + height;
      for (const state of ["absent", "clean", "zero", "shared", "dirty"]) {
        if (!counts[state]) continue;
        const h = Math.max(1.5, Math.min(1, counts[state] / capacity) * height);
        context.fillStyle = colours.get("page-" + state);
        context.fillRect(column * COLUMN, y - h, COLUMN, h);
        y -= h;
      }
    }
  }

  /** What the event changed, and which area is selected. */
  _marks(context, areas, top, height, width) {
    const { app } = this;
    context.lineWidth = 2;
    for (const area of areas) {
      const changed = app.changedBorders.has(area.number);
      if (!changed && app.selectedArea !== area.number) continue;
      const [x0, x1] = [this._x(area.start), this._x(area.end)];
      if (x1 < 0 || x0 > width) continue;
      context.strokeStyle = colours.get(changed ? "changed" : "accent");
      context.setLineDash(changed ? [] : [4, 3]);
      context.strokeRect(Math.max(1, x0 - 1), top - 2, Math.min(width - 2, Math.max(5, x1 + 1)) - Math.max(1, x0 - 1), height + 4);
    }
    context.setLineDash([]);
    const address = app.eventAddress;
    if (address === null) return;
    const x = this._x(address);
    if (x < -1 || x > width + 1) return;
    const at = Math.max(6, Math.min(width - 6, x));
    context.fillStyle = colours.get("changed");
    context.beginPath();
    context.moveTo(at - 6, 18);
    context.lineTo(at + 6, 18);
    context.lineTo(at, 27);
    context.fill();
    context.fillRect(at - 1, 24, 2, top + height - 24);
    const text = hex(address);
    context.font = "11px ui-monospace, monospace";
    const room = context.measureText(text).width;
    context.fillText(text, at + 10 + room < width ? at + 9 : at - 9 - room, 22);
  }

  _axis(context, width, height, bottom, from, to) {
    context.font = "11px ui-monospace, monospace";
    context.fillStyle = colours.get("muted");
    const labels = Math.max(2, Math.floor(width / 150));
    let free = -1;
    for (let i = 0; i <= labels; i++) {
      const address = Math.floor(this.addressOf(from + ((to - from) * i) / labels) / this.app.run.pageSize) * this.app.run.pageSize;
      const text = address.toString(16);
      const room = context.measureText(text).width;
      const x = Math.min(width - room - 2, Math.max(2, (width * i) / labels - room / 2));
      if (x < free) continue;
      context.fillRect(Math.min(width - 1, (width * i) / labels), bottom + 3, 1, 5);
      context.fillText(text, x, bottom + 17);
      free = x + room + 12;
    }
    const pages = to - from;
    context.font = "11px system-ui, sans-serif";
    const note = this.folded ? "gaps are folded (s: to scale)" : `to scale: the strip is ${size(pages * this.app.run.pageSize)} wide (s: fold the gaps)`;
    context.fillText(note, 2, height - 6);
  }

  // -- mouse and keys

  _areaAt(x) {
    const [from] = this.window();
    const address = this.addressOf(from + x / this.scale);
    const areas = this.app.run.areas(this.space);
    const inside = areas.find((area) => area.start <= address && address < area.end);
    if (inside || !areas.length) return inside || null;
    const near = areas.map((area) => [Math.min(Math.abs(this._x(area.start) - x), Math.abs(this._x(area.end) - x)), area]);
    const [distance, area] = near.reduce((best, one) => (one[0] < best[0] ? one : best));
    return distance < 5 ? area : null; // areas too thin to hit
  }

  _listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(Math.sign(event.deltaX || event.deltaY) * 0.1);
      else this.zoom(event.deltaY > 0 ? 1.25 : 0.8, event.offsetX / canvas.clientWidth);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      drag = { x: event.offsetX, window: this.window(), moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        const shift = ((drag.x - event.offsetX) / canvas.clientWidth) * (drag.window[1] - drag.window[0]);
        drag.moved ||= Math.abs(event.offsetX - drag.x) > 3;
        if (drag.moved) this.show(drag.window[0] + shift, drag.window[1] + shift);
        return;
      }
      const area = this.space >= 0 ? this._areaAt(event.offsetX) : null;
      canvas.title = area ? `${hex(area.start)}-${hex(area.end)} ${permissions(area.flags)} ${area.name || "anonymous"}, ${size(area.end - area.start)}` : "";
    });
    canvas.addEventListener("pointerup", (event) => {
      if (drag && !drag.moved) {
        const area = this._areaAt(event.offsetX);
        if (area) this.app.selectArea(area.number);
      }
      drag = null;
    });
    canvas.addEventListener("pointercancel", () => (drag = null));
    canvas.addEventListener("keydown", (event) => {
      const area = this.app.run.areas(this.space).findIndex((one) => one.number === this.app.selectedArea);
      const areas = this.app.run.areas(this.space);
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step && areas.length && !event.shiftKey) this.app.selectArea(areas[Math.max(0, Math.min(areas.length - 1, area + step))].number);
      else if (step && event.shiftKey) this.pan(step * 0.2);
      else if (event.key === "Enter" && area >= 0) this.fit(areas[area]);
      else return;
      event.preventDefault();
    });
  }
}
