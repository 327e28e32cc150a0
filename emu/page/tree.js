// ---- tree.js: the red-black tree of the areas ----------------------------------------------------------------------
//
// A node stands at its place in the order of addresses (left to right) and at its depth. Wide trees scroll; only what
// is in sight is drawn. Black nodes are filled, red ones are too but round: colour is not the only sign.

class TreeView {
  constructor(app) {
    this.app = app;
    this.host = $("tree-scroll");
    this.canvas = $("tree");
    this.shown = false; // something was brought into view already
    this.step = 0; // pixels between neighbours; 0: as many as fit
    this.host.addEventListener("scroll", () => this.draw());
    this.host.addEventListener("keydown", (event) => this._key(event));
    this.canvas.addEventListener("click", (event) => this._click(event));
    $("tree-in").addEventListener("click", () => this.zoom(1.5));
    $("tree-out").addEventListener("click", () => this.zoom(1 / 1.5));
    new ResizeObserver(() => this.draw()).observe(this.host);
  }

  /** Places of the nodes, for a tree of `areas`. */
  _layout(areas) {
    const depth = areas.reduce((most, area) => Math.max(most, area.depth), 0) + 1;
    const room = this.host.clientWidth;
    const step = this.step || Math.max(80, Math.min(110, (room - 40) / areas.length));
    const rise = Math.max(44, Math.min(64, (this.host.clientHeight - 40) / depth));
    return { step, rise, width: Math.max(room, step * areas.length + 40), height: Math.max(this.host.clientHeight, rise * depth + 40) };
  }

  place(index, area) {
    const { step, rise, width } = this.layout;
    const margin = Math.max(20, (width - step * this.areas.length) / 2);
    return [margin + step * (index + 0.5), 34 + rise * area.depth];
  }

  draw() {
    if (this.host.offsetParent === null) return; // its tab is not shown
    const { run } = this.app;
    const areas = (this.areas = run.areas(this.app.space));
    this.layout = this._layout(areas);
    $("tree-size").style.width = `${this.layout.width}px`;
    $("tree-size").style.height = `${this.layout.height}px`;
    this.canvas.style.width = `${this.host.clientWidth}px`; // it stays in sight: what moves is what it shows
    this.canvas.style.height = `${this.host.clientHeight}px`;
    const { context, width, height } = prepareCanvas(this.canvas);
    const [scrollX, scrollY] = [this.host.scrollLeft, this.host.scrollTop];
    this.index = new Map(areas.map((area, i) => [area.number, i]));
    this._describe(areas);
    if (!areas.length) {
      context.fillStyle = colours.get("muted");
      context.font = "13px system-ui, sans-serif";
      context.fillText("An empty tree.", 12, 24);
      return;
    }
    context.save();
    context.translate(-scrollX, -scrollY);
    const visible = (x) => x > scrollX - 200 && x < scrollX + width + 200;
    const way = this._wayTo(areas, this.app.eventAddress);
    areas.forEach((area, i) => {
      const [x, y] = this.place(i, area);
      for (const side of [area.left, area.right]) {
        const child = this.index.get(side);
        if (child === undefined) continue;
        const [cx, cy] = this.place(child, areas[child]);
        if (Math.max(x, cx) < scrollX || Math.min(x, cx) > scrollX + width) continue;
        const taken = way.has(area.number) && way.has(areas[child].number);
        context.lineWidth = taken ? 3.5 : 1.25;
        context.strokeStyle = colours.get(taken ? "accent" : "edge");
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(cx, cy);
        context.stroke();
      }
    });
    context.lineWidth = 1.25;
    areas.forEach((area, i) => {
      const [x, y] = this.place(i, area);
      if (visible(x) && y > scrollY - 60 && y < scrollY + height + 60) this._node(context, area, x, y);
    });
    context.restore();
  }

  /** The nodes that find_vma compares on its way to an address, where the vmacache does not answer. */
  _wayTo(areas, address) {
    const way = new Set();
    let area = address === null ? undefined : areas.find((one) => one.depth === 0);
    while (area && !way.has(area.number)) {
      way.add(area.number);
      if (area.start <= address && address < area.end) break;
      area = areas[this.index.get(address < area.end ? area.left : area.right)];
    }
    return way;
  }

  _node(context, area, x, y) {
    const { app } = this;
    const { step } = this.layout;
    const radius = Math.max(2, Math.min(11, step * 0.3));
    const slot = app.cacheSlots.indexOf(area.number);
    context.beginPath();
    if (area.red) context.arc(x, y, radius, 0, 2 * Math.PI);
    else context.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, 3);
    context.fillStyle = colours.get(area.red ? "node-red" : "node-black");
    context.fill();
    const changed = app.changedAreas.has(area.number);
    if (changed || app.selectedArea === area.number) {
      context.lineWidth = 3;
      context.strokeStyle = colours.get(changed ? "changed" : "accent");
      context.setLineDash(changed ? [] : [4, 3]);
      context.strokeRect(x - radius - 3.5, y - radius - 3.5, 2 * radius + 7, 2 * radius + 7);
      context.setLineDash([]);
      context.lineWidth = 1.25;
    }
    context.textAlign = "center";
    if (radius > 8) {
      context.fillStyle = "#fff";
      context.font = "600 10px system-ui, sans-serif";
      context.fillText(area.red ? "R" : "B", x, y + 0.5);
    }
    const label = (text, dy) => { // with a rim of the ground, so that an edge behind it does not cross it out
      context.lineWidth = 4;
      context.strokeStyle = colours.get("panel");
      context.strokeText(text, x, y + dy);
      context.fillText(text, x, y + dy);
    };
    const room = step - 4;
    context.lineJoin = "round";
    if (slot >= 0) {
      context.fillStyle = colours.get("accent");
      context.font = "600 10px system-ui, sans-serif";
      label(`cache ${slot}`, -radius - 10);
    }
    context.fillStyle = colours.get("ink");
    context.font = "10px ui-monospace, monospace";
    const start = area.start.toString(16);
    if (step > 30) label(fitText(context, start, room), radius + 13);
    if (step >= 60) {
      context.fillStyle = colours.get("muted");
      context.font = "10px system-ui, sans-serif";
      label(fitText(context, `gap ${size(area.subtreeGap)}`, room), radius + 26);
    }
    context.textAlign = "start";
  }

  /** The selected node in words, for those who do not see the drawing (and for those who do). */
  _describe(areas) {
    const area = areas[this.index.get(this.app.selectedArea)];
    const depth = areas.reduce((most, one) => Math.max(most, one.depth), -1) + 1;
    let text = `${plural(areas.length, "area")}, height ${depth}`;
    if (area) {
      const name = (number) => (this.index.has(number) ? areas[this.index.get(number)].start.toString(16) : "none");
      text = `${area.start.toString(16)}-${area.end.toString(16)} ${permissions(area.flags)} ${area.name || "anonymous"}: ` +
        `${area.red ? "red" : "black"}, depth ${area.depth}, left ${name(area.left)}, right ${name(area.right)}, ` +
        `free below ${size(area.gap)}, largest gap in its subtree ${size(area.subtreeGap)}`;
    }
    $("tree-text").textContent = text;
  }

  _click(event) {
    const x = event.offsetX + this.host.scrollLeft;
    const y = event.offsetY + this.host.scrollTop;
    let best = null;
    this.areas.forEach((area, i) => {
      const [ax, ay] = this.place(i, area);
      const distance = Math.hypot(ax - x, ay - y);
      if (distance < 26 && (!best || distance < best.distance)) best = { distance, area };
    });
    if (best) this.app.selectArea(best.area.number);
  }

  /** Closer or farther, around the middle of what is in sight; 0: as at first. */
  zoom(factor) {
    const { host } = this;
    const middle = (host.scrollLeft + host.clientWidth / 2) / this.layout.width;
    this.step = factor ? Math.max(3, Math.min(160, this.layout.step * factor)) : 0;
    this.draw();
    host.scrollLeft = middle * this.layout.width - host.clientWidth / 2;
    this.draw();
  }

  /** Arrow keys go along the edges; in the order of addresses with Shift. */
  _key(event) {
    if (!this.areas.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[event.key];
    if (factor !== undefined) {
      event.preventDefault();
      this.zoom(factor);
      return;
    }
    const at = this.index.get(this.app.selectedArea);
    const top = this.areas.findIndex((area) => area.depth === 0);
    let next = { Home: 0, End: this.areas.length - 1 }[event.key];
    if (event.key.startsWith("Arrow")) {
      if (at === undefined) next = top;
      else if (event.shiftKey) next = at + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
      else if (event.key === "ArrowUp") next = this.areas.findIndex((area) => [area.left, area.right].includes(this.areas[at].number));
      else if (event.key === "ArrowLeft") next = this.index.get(this.areas[at].left);
      else if (event.key === "ArrowRight") next = this.index.get(this.areas[at].right);
      else next = this.index.get(this.areas[at].left) ?? this.index.get(this.areas[at].right);
      event.preventDefault(); // an edge that is not there is no reason to step through events
    }
    if (next === undefined || !this.areas[next]) return;
    event.preventDefault();
    this.app.selectArea(this.areas[next].number);
  }

  /** Bring a node into view. */
  reveal(number) {
    this.draw();
    this.shown = true;
    if (this.host.offsetParent === null || !this.index.has(number)) return;
    const [x, y] = this.place(this.index.get(number), this.areas[this.index.get(number)]);
    const { host } = this;
    if (x < host.scrollLeft + 40 || x > host.scrollLeft + host.clientWidth - 40) host.scrollLeft = x - host.clientWidth / 2;
    if (y < host.scrollTop + 20 || y > host.scrollTop + host.clientHeight - 40) host.scrollTop = y - host.clientHeight / 2;
  }
}
