// ---- tables.js: the views made of rows: areas and vmacache, page tables, processes and frames -----------------------

/** The sorted list of areas (mm->mmap, vm_next), the four slots of the vmacache above it. */
class AreasView {
  constructor(app) {
    this.app = app;
    this.list = new VirtualList($("areas"), {
      count: () => this._areas().length,
      fill: (row, index) => this._fill(row, this._areas()[index]),
      choose: (index) => app.selectArea(this._areas()[index].number),
      key: (event, index) => {
        if (event.key !== "Enter" || index < 0) return false;
        app.spaceView.fit(this._areas()[index]);
        return true;
      },
    });
  }

  _areas() {
    return this.app.run.areas(this.app.space);
  }

  draw() {
    const areas = this._areas();
    this.list.select(areas.findIndex((area) => area.number === this.app.selectedArea));
    this._cache(areas);
  }

  _cache(areas) {
    const { app } = this;
    const byNumber = new Map(areas.map((area) => [area.number, area]));
    const task = app.currentTask;
    const slots = app.cacheSlots.map((number, slot) => {
      const area = byNumber.get(number);
      const hit = app.changedFields.has(`task ${task && task.number} slot${slot}`);
      return el("span", { class: "slot" + (hit ? " changed" : "") }, `slot ${slot}: `,
        area ? el("button", { type: "button", class: "link", click: () => app.selectArea(number) }, hex(area.start)) : "empty");
    });
    if (!app.run.head.live) slots.splice(0, 4, el("span", {}, "vmacache: a bare trace does not tell it; `pagewalk view PROGRAM` does"));
    else if (task) slots.push(el("span", { class: "muted" }, `${plural(task.hits, "hit")} in ${plural(task.lookups, "lookup")} of pid ${task.pid}`));
    $("vmacache").replaceChildren(...slots);
  }

  _fill(row, area) {
    const { app } = this;
    row.classList.add("area-row");
    if (app.changedBorders.has(area.number)) row.classList.add("changed");
    const slot = app.cacheSlots.indexOf(area.number);
    const resident = this._resident(area);
    row.replaceChildren(
      el("span", { class: "swatch", "data-area": PERMISSION_COLOURS(area.flags) }),
      el("span", { class: "mono wide" }, `${area.start.toString(16)}-${area.end.toString(16)}`),
      el("span", { class: "mono" }, permissions(area.flags)),
      el("span", { class: "number" }, size(area.end - area.start)),
      el("span", { class: "number", title: "resident pages" }, String(resident)),
      el("span", { class: "number mono", title: "page offset (vm_pgoff)" }, area.pgoff.toString(16)),
      el("span", { class: "grow", title: `${area.name || "anonymous"}\nVM_: ${flagNames(area.flags)}` }, area.name || "anonymous"),
      el("span", { class: "tag" }, slot >= 0 ? `cache ${slot}` : ""),
    );
  }

  _resident(area) {
    const { run } = this.app;
    let pages = 0;
    run.eachLeaf(this.app.space, area.start, area.end, (i, address, low, high) => {
      if (run.arch.present(low, high)) pages += run.pageBytes(low, high) / run.pageSize;
    });
    return pages;
  }
}

/** Page tables to unfold, from the root to each entry. */
class TablesView {
  constructor(app) {
    this.app = app;
    this.open = new Set(); // "level address" of what is unfolded
    this.current = "";
    this.rows = [];
    this.list = new VirtualList($("tables"), {
      count: () => this.rows.length,
      fill: (row, index) => this._fill(row, this.rows[index]),
      choose: (index, event) => {
        this.current = this.rows[index].key;
        if (event && event.type === "click") this._toggle(this.rows[index]);
        this.draw();
      },
      key: (event, index) => this._key(event, index),
    });
  }

  draw() {
    const { run, space } = this.app;
    this.rows = [];
    if (space >= 0 && run.get("space", space, "alive")) this._collect();
    this.list.select(this.rows.findIndex((row) => row.key === this.current));
    $("bits").textContent = run.arch.help;
  }

  /** Rows of all that is unfolded. A table's children are the tables of the next level within its range. */
  _collect() {
    const { run, space } = this.app;
    const tables = run.tables(space);
    const names = ["pgd", "p4d", "pud", "pmd", "pte"].filter((name) => tables.some((table) => table.level === name));
    const entryBits = Math.log2(run.pageSize / 8);
    const reach = (depth) => { // bytes that a table at this depth serves
      const below = { pgd: 4, p4d: 4, pud: 3, pmd: 2, pte: 1 }[names[depth]];
      return depth === 0 ? Infinity : run.pageSize * 2 ** (entryBits * below);
    };
    const byLevel = names.map((name) => tables.filter((table) => table.level === name));
    const add = (depth, table, index) => {
      const row = { key: `${depth} ${table.address}`, depth, table, index };
      row.open = depth === 0 || this.open.has(row.key);
      const end = table.address + reach(depth);
      row.children = depth + 1 < names.length ? byLevel[depth + 1].filter((child) => child.address >= table.address && child.address < end) : [];
      row.range = [table.address, end];
      row.reserve = false; // a huge page has a table put by, for when it must be split
      if (names[depth] === "pte") run.eachLeaf(space, table.address, table.address + 1, (i, address, low, high) => (row.reserve = run.arch.huge(low, high)));
      this.rows.push(row);
      if (!row.open) return;
      const own = reach(depth) / 2 ** entryBits;
      for (const child of row.children) add(depth + 1, child, Math.floor((child.address - table.address) / (Number.isFinite(own) ? own : reach(depth + 1))));
      if (names[depth] !== "pte" && names[depth] !== "pmd") return;
      run.eachLeaf(space, table.address, Math.min(end, 2 ** 57), (i, address, low, high) => {
        if (run.arch.huge(low, high) !== (names[depth] === "pmd")) return;
        this.rows.push({ key: `leaf ${address}`, depth: depth + 1, leaf: i, address, low, high, index: Math.floor((address - table.address) / own) });
      });
    };
    for (const root of byLevel[0] || []) add(0, root, -1);
  }

  _fill(row, item) {
    const { run, space, changedFields } = this.app;
    row.classList.add("table-row");
    row.style.paddingLeft = `${8 + item.depth * 18}px`;
    if (item.leaf === undefined) {
      const entries = item.children.length;
      if (changedFields.has(`table ${item.table.number} alive`)) row.classList.add("changed");
      row.setAttribute("aria-expanded", String(item.open));
      row.replaceChildren(
        el("span", { class: "fold" }, item.open ? "▾" : "▸"),
        el("span", { class: "mono" }, item.index < 0 ? item.table.level : `[${item.index.toString(16).padStart(3, "0")}] → ${item.table.level}`),
        el("span", {}, `table in frame ${hex(item.table.pfn)}`),
        el("span", { class: "muted grow" }, item.reserve ? "put by, for when the huge page there is split" : `serves ${hex(item.table.address)} on${entries ? `, ${plural(entries, "table")} below` : ""}`),
      );
      return;
    }
    row.removeAttribute("aria-expanded");
    if (changedFields.has(`leaf ${item.leaf} entry`)) row.classList.add("changed");
    const area = run.areas(space).find((one) => one.start <= item.address && item.address < one.end);
    const state = run.pageState(item.low, item.high);
    row.replaceChildren(
      el("span", { class: "swatch", "data-page": state, title: state }),
      el("span", { class: "mono" }, `[${item.index.toString(16).padStart(3, "0")}] ${item.address.toString(16)}`),
      el("span", { class: "mono" }, run.arch.present(item.low, item.high) ? `→ frame ${hex(run.frame(item.low, item.high))}` : "→ nothing"),
      el("span", { class: "mono bits" }, run.arch.bits(item.low, item.high).join(" ")),
      el("span", { class: "muted grow" }, `${state}${area ? ", " + (area.name || "anonymous") : ""}`),
    );
  }

  _toggle(row) {
    if (row.leaf !== undefined || row.depth === 0) return;
    if (this.open.has(row.key)) this.open.delete(row.key);
    else this.open.add(row.key);
  }

  /** Enter, → and ← unfold and fold, as trees do. */
  _key(event, index) {
    const row = this.rows[index];
    if (!row || !["Enter", "ArrowRight", "ArrowLeft"].includes(event.key)) return false;
    if (event.key === "ArrowLeft" && (row.leaf !== undefined || !row.open)) {
      for (let i = index - 1; i >= 0; i--) {
        if (this.rows[i].depth < row.depth) {
          this.current = this.rows[i].key;
          break;
        }
      }
    } else if (event.key === "Enter" || row.open === (event.key === "ArrowLeft")) this._toggle(row);
    this.draw();
    return true;
  }

  /** Unfold down to an address and select its entry. */
  reveal(address) {
    const { run, space } = this.app;
    for (let depth = 0; depth < 5; depth++) {
      this.draw();
      const row = this.rows.filter((one) => one.table && one.depth === depth && one.range[0] <= address && address < one.range[1]).pop();
      if (row) this.open.add(row.key);
    }
    const page = Math.floor(address / run.pageSize) * run.pageSize;
    this.draw();
    const leaf = this.rows.find((row) => row.leaf !== undefined && row.address <= page && page < row.address + run.pageBytes(row.low, row.high));
    if (leaf) this.current = leaf.key;
    this.draw();
    return space >= 0 && Boolean(leaf);
  }
}

/** Processes, and the frames that more than one entry maps. */
class TasksView {
  constructor(app) {
    this.app = app;
    this.frames = [];
    this.list = new VirtualList($("frames"), {
      count: () => this.frames.length,
      fill: (row, index) => this._fillFrame(row, this.frames[index]),
      choose: (index) => this.list.select(index),
    });
  }

  draw() {
    const { app } = this;
    const { run } = app;
    const body = run.tasks().map((task) => {
      const alive = task.state === 1;
      const space = task.space;
      const residence = run.residence(space);
      const pages = residence.clean + residence.dirty + residence.shared + residence.zero;
      const kernel = run.head.live && alive ? `${(task.anon + task.file + task.shmem).toLocaleString("en")}` : "–";
      const chosen = space >= 0 && space === app.space;
      const row = [
        el("td", { class: "number" }, String(task.pid)),
        el("td", { class: "number" }, task.parent ? String(task.parent) : "–"),
        el("td", {}, task.comm),
        el("td", {}, alive ? (app.currentTask && app.currentTask.number === task.number ? "on the CPU" : "alive") : `ended, ${task.status & 127 ? signalName(task.status & 127) : "status " + ((task.status >> 8) & 255)}`),
        el("td", { class: "number" }, space >= 0 ? String(run.areas(space).length) : "–"),
        el("td", { class: "number" }, space >= 0 ? pages.toLocaleString("en") : "–"),
        el("td", { class: "number" }, space >= 0 ? residence.shared.toLocaleString("en") : "–"),
        el("td", { class: "number" }, kernel),
        el("td", {}, space >= 0 ? el("button", { type: "button", class: "small", "aria-pressed": String(chosen), click: () => app.chooseSpace(space) }, "show") : ""),
      ];
      const changed = [...app.changedFields].some((field) => field.startsWith(`task ${task.number} `));
      return el("tr", { class: changed ? "changed" : null }, ...row);
    });
    $("tasks").tBodies[0].replaceChildren(...body);
    this._collectFrames();
  }

  _collectFrames() {
    const { run } = this.app;
    const shared = new Map();
    for (const [frame, count] of run.frameCounts()) {
      if (count > 1 && frame !== run.head.zero_frame) shared.set(frame, []);
    }
    if (shared.size) {
      for (let space = 0; space < run.objects.space.count; space++) {
        if (!run.get("space", space, "alive")) continue;
        run.eachLeaf(space, 0, Infinity, (i, address, low, high) => {
          if (!run.arch.present(low, high)) return;
          const users = shared.get(run.frame(low, high));
          if (users) users.push({ space, address, leaf: i, writable: run.arch.writable(low, high) });
        });
      }
    }
    this.frames = [...shared].sort((a, b) => b[1].length - a[1].length || a[0] - b[0]);
    $("frames-title").textContent = `Shared frames: ${this.frames.length.toLocaleString("en")} mapped more than once` +
      (run.head.zero_frame ? `, and the zero page by ${plural(run.frameCounts().get(run.head.zero_frame) || 0, "entry").replace("entrys", "entries")}` : "");
    this.list.draw();
  }

  _fillFrame(row, [frame, users]) {
    const { run, changedFields } = this.app;
    const names = new Map();
    for (const task of run.tasks()) if (task.space >= 0) names.set(task.space, names.has(task.space) ? `${names.get(task.space)}+${task.pid}` : `${task.pid}`);
    if (users.some((user) => changedFields.has(`leaf ${user.leaf} entry`))) row.classList.add("changed");
    const where = users.slice(0, 20).map((user) => `${names.get(user.space) || "?"}:${user.address.toString(16)}${user.writable ? " rw" : " ro"}`).join("   ");
    row.replaceChildren(
      el("span", { class: "mono" }, `frame ${hex(frame)}`),
      el("span", { class: "number" }, `${users.length}×`),
      el("span", { class: "mono muted grow", title: where }, where + (users.length > 20 ? " …" : "")),
    );
  }
}
