// ---- main.js: the page put together: time line, events, selection, keys ---------------------------------------------

const VIEWS = ["tree", "areas", "tables", "tasks"];

class App {
  constructor(run) {
    this.run = run;
    this.space = -1; // the address space that is shown
    this.pinned = -1; // one that the reader chose, or -1: that of the event
    this.selectedArea = -1;
    this.view = "tree";
    this.groups = new Set(GROUPS.map((group) => group.name));
    this.shown = null; // numbers of the events that the filter lets through; null: all
    this._texts = null; // of all events, for the search; made when first needed
    this._groupOf = run.kindNames.map((kind) => Math.max(0, GROUPS.findIndex((group) => group.kinds.includes(kind))) + (GROUPS.some((group) => group.kinds.includes(kind)) ? 0 : GROUPS.length - 1));
    this._clearChanges();
    this.spaceView = new SpaceView(this);
    this.treeView = new TreeView(this);
    this.areasView = new AreasView(this);
    this.tablesView = new TablesView(this);
    this.tasksView = new TasksView(this);
    this.events = new VirtualList($("events"), {
      count: () => (this.shown ? this.shown.length : run.count),
      fill: (row, index) => this._fillEvent(row, this._eventAt(index)),
      choose: (index) => this.go(this._eventAt(index)),
    });
    this._buildFilters();
    this._listen();
  }

  // -- time

  _clearChanges() {
    this.changes = [];
    this.changedAreas = new Set(); // something of them, if only their place in the tree
    this.changedBorders = new Set(); // more than that
    this.changedFields = new Set();
    this.eventAddress = null;
    this.cacheSlots = [-1, -1, -1, -1];
    this.currentTask = null;
  }

  /** Show the state after event n; -1 is before the first. */
  go(n) {
    const { run } = this;
    run.go(n);
    n = run.at;
    this._clearChanges();
    this.changes = run.changes(n);
    for (const change of this.changes) {
      this.changedFields.add(`${change.what} ${change.number} ${change.field}`);
      if (change.what !== "area") continue;
      this.changedAreas.add(change.number);
      if (!["left", "right", "red"].includes(change.field)) this.changedBorders.add(change.number);
    }
    if (n >= 0) {
      if (["fault", "pte_set", "vma_split"].includes(run.kindOf(n))) this.eventAddress = run.num(n, "address");
      this.currentTask = run.taskOf(run.task[n]);
    }
    this._chooseSpace(n);
    if (this.currentTask && this.currentTask.space === this.space) this.cacheSlots = this.currentTask.slots;
    this.draw();
  }

  _chooseSpace(n) {
    const alive = (space) => space >= 0 && this.run.get("space", space, "alive");
    if (!alive(this.pinned)) this.pinned = -1;
    const own = this.run.spaceOf(n);
    if (this.pinned >= 0) this.space = this.pinned;
    else if (alive(own)) this.space = own;
    else if (!alive(this.space)) this.space = this.run.tasks().map((task) => task.space).find(alive) ?? -1;
  }

  chooseSpace(space) {
    this.pinned = space;
    this.go(this.run.at);
  }

  _eventAt(index) {
    return this.shown ? this.shown[index] : index;
  }

  /** The place of event n among those shown, or of the last one before it; -1: before the first. */
  _indexOf(n) {
    if (!this.shown) return n;
    let low = 0;
    let high = this.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle] <= n) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** Step over `count` of the shown events, forward or back. */
  step(count) {
    const here = this._indexOf(this.run.at);
    const exact = here >= 0 && this._eventAt(here) === this.run.at;
    const target = here + count + (!exact && count < 0 && here >= 0 ? 1 : 0);
    if (target < 0) this.go(-1);
    else if (this.events.count()) this.go(this._eventAt(Math.min(target, this.events.count() - 1)));
  }

  // -- filter and search

  _buildFilters() {
    const { run } = this;
    const counts = new Array(GROUPS.length).fill(0);
    for (let n = 0; n < run.count; n++) counts[this._groupOf[run.kind[n]]]++;
    this.groupCounts = counts;
    $("filters").append(...GROUPS.map((group, i) => counts[i] === 0 ? null : el("button", {
      type: "button", class: "chip", "data-group": group.name, "aria-pressed": "true",
      title: `show or hide ${group.name}; with Shift only these`,
      click: (event) => this._toggleGroup(group.name, event.shiftKey),
    }, group.name, el("small", {}, counts[i].toLocaleString("en")))).filter(Boolean));
  }

  _toggleGroup(name, only) {
    if (only) this.groups = this.groups.size === 1 && this.groups.has(name) ? new Set(GROUPS.map((group) => group.name)) : new Set([name]);
    else if (this.groups.has(name)) this.groups.delete(name);
    else this.groups.add(name);
    for (const chip of $("filters").children) chip.setAttribute("aria-pressed", String(this.groups.has(chip.dataset.group)));
    this.filter();
  }

  /** Texts of all events in lower case, for the search. */
  texts() {
    if (!this._texts) {
      this._texts = new Array(this.run.count);
      for (let n = 0; n < this.run.count; n++) {
        this._texts[n] = `${this.run.kindOf(n)} ${summary(this.run, n)} ${this.run.text(n, "strace")}`.toLowerCase();
      }
    }
    return this._texts;
  }

  /** What the search box says: words, `pid:27`, `at:7ffff7ff0000`. */
  _matcher() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = words.map((word) => {
      const [, key, value] = word.match(/^(pid|at|kind):(.*)$/) || [];
      if (key === "pid") return (n) => this.run.task[n] === Number(value) || (this.run.has(n, "pid") && this.run.num(n, "pid") === Number(value));
      if (key === "kind") return (n) => this.run.kindOf(n).includes(value);
      if (key === "at") {
        const address = parseInt(value, 16);
        return (n) => this._isAbout(n, address);
      }
      const texts = this.texts();
      return (n) => texts[n].includes(word);
    });
    return tests.length ? (n) => tests.every((test) => test(n)) : null;
  }

  /** Whether an event is about the page or area around an address. */
  _isAbout(n, address) {
    const { run } = this;
    if (run.has(n, "start")) return run.num(n, "start") <= address && address < run.num(n, "end");
    if (!run.has(n, "address") || run.kindOf(n).startsWith("page_table")) return false;
    return Math.floor(run.num(n, "address") / run.pageSize) === Math.floor(address / run.pageSize);
  }

  filter() {
    const { run } = this;
    const matches = this._matcher();
    const wanted = run.kindNames.map((name, kind) => this.groups.has(GROUPS[this._groupOf[kind]].name));
    this.shown = null;
    if (matches || wanted.includes(false)) {
      const found = new Uint32Array(run.count);
      let count = 0;
      for (let n = 0; n < run.count; n++) if (wanted[run.kind[n]] && (!matches || matches(n))) found[count++] = n;
      this.shown = found.subarray(0, count);
    }
    $("found").textContent = this.shown ? `${this.shown.length.toLocaleString("en")} of ${plural(run.count, "event")}` : plural(run.count, "event");
    this.drawTimeline();
    this.events.select(this._indexOf(run.at));
  }

  // -- selection

  selectArea(number) {
    this.selectedArea = number;
    this.draw();
    if (this.view === "tree") this.treeView.reveal(number);
  }

  setView(view) {
    this.view = view;
    for (const name of VIEWS) {
      $(`tab-${name}`).setAttribute("aria-selected", String(name === view));
      $(`tab-${name}`).tabIndex = name === view ? 0 : -1;
      $(`view-${name}`).hidden = name !== view;
    }
    this.draw();
  }

  // -- drawing

  draw() {
    const { run } = this;
    $("position").value = run.at + 1;
    $("slider").value = run.at + 1;
    $("slider").setAttribute("aria-valuetext", run.at < 0 ? "before the first event" : `event ${run.at + 1}: ${run.kindOf(run.at)} ${summary(run, run.at)}`);
    this.events.select(this._indexOf(run.at));
    this.drawTimeline();
    this._drawSpaces();
    this.spaceView.draw();
    if (this.view === "tables" && this.eventAddress !== null) this.tablesView.reveal(this.eventAddress);
    ({ tree: this.treeView, areas: this.areasView, tables: this.tablesView, tasks: this.tasksView })[this.view].draw();
    if (this.view === "tree") this._revealNode();
    this._drawDetails();
  }

  /** Of a tree too wide to be seen: what the event is about; the root at first. */
  _revealNode() {
    const areas = this.run.areas(this.space);
    const changed = areas.find((area) => this.changedAreas.has(area.number));
    const about = changed || (this.eventAddress !== null && areas.find((area) => area.start <= this.eventAddress && this.eventAddress < area.end));
    const node = about || (!this.treeView.shown && areas.find((area) => area.depth === 0));
    if (node) this.treeView.reveal(node.number);
  }

  /** The choice of address spaces, and the numbers of the one shown. */
  _drawSpaces() {
    const { run } = this;
    const living = [];
    for (let space = 0; space < run.objects.space.count; space++) {
      if (!run.get("space", space, "alive")) continue;
      const tasks = run.tasks().filter((task) => task.space === space && task.state === 1);
      living.push([space, tasks.length ? `pid ${tasks.map((task) => task.pid).slice(0, 4).join(", ")} ${tasks[0].comm}` : `being built, root ${hex(run.objects.space.root[space])}`]);
    }
    const key = JSON.stringify(living);
    if (this._spacesKey !== key) {
      this._spacesKey = key;
      $("spaces").replaceChildren(el("option", { value: "-1" }, "that of the event"), ...living.map(([space, name]) => el("option", { value: String(space) }, name)));
    }
    $("spaces").value = String(this.pinned);
    const areas = run.areas(this.space);
    const counts = run.residence(this.space);
    const mapped = areas.reduce((sum, area) => sum + area.end - area.start, 0);
    const parts = [
      this.pinned < 0 && living.length ? (living.find(([space]) => space === this.space) || ["", ""])[1] : "",
      `${plural(areas.length, "area")}, ${size(mapped)} mapped`,
      `pages: ${counts.clean} clean, ${counts.dirty} dirty, ${counts.shared} shared, ${counts.zero} zero`,
    ];
    $("numbers").textContent = parts.filter(Boolean).join("  ·  ");
  }

  drawTimeline() {
    const { run } = this;
    const { context, width, height } = prepareCanvas($("timeline"));
    const columns = Math.max(1, Math.min(run.count, Math.floor(width / 3)));
    const key = `${columns} ${this.shown ? this.shown.length : "all"} ${this.shown && this.shown[0]} ${[...this.groups]} ${$("search").value}`;
    if (this._bucketsKey !== key) {
      this._bucketsKey = key;
      this._buckets = new Uint32Array(columns * GROUPS.length);
      const count = this.events.count();
      for (let i = 0; i < count; i++) {
        const n = this._eventAt(i);
        this._buckets[Math.floor((n * columns) / run.count) * GROUPS.length + this._groupOf[run.kind[n]]]++;
      }
      this._tallest = 1;
      for (let column = 0; column < columns; column++) {
        this._tallest = Math.max(this._tallest, this._buckets.subarray(column * GROUPS.length, (column + 1) * GROUPS.length).reduce((a, b) => a + b, 0));
      }
    }
    const pixels = width / columns;
    for (let column = 0; column < columns; column++) {
      let y = height - 1;
      for (let group = 0; group < GROUPS.length; group++) {
        const count = this._buckets[column * GROUPS.length + group];
        if (!count) continue;
        const h = (count / this._tallest) * (height - 6);
        context.fillStyle = colours.get("kind-" + GROUPS[group].name);
        context.fillRect(column * pixels, y - h, Math.max(1, pixels - (pixels > 2 ? 0.5 : 0)), h);
        y -= h;
      }
    }
    const x = ((run.at + 1) / Math.max(1, run.count)) * width;
    context.fillStyle = colours.get("ink");
    context.fillRect(Math.min(width - 2, Math.max(0, x - 1)), 0, 2, height);
  }

  _fillEvent(row, n) {
    const { run } = this;
    row.classList.add("event-row");
    const group = GROUPS[this._groupOf[run.kind[n]]].name;
    row.replaceChildren(
      el("span", { class: "number muted" }, String(n + 1)),
      el("span", { class: "dot", "data-group": group }),
      el("span", { class: "kind" }, run.kindOf(n).replace("page_table_", "table_").replace("syscall_", "call_")),
      el("span", { class: "grow mono", title: summary(run, n) }, summary(run, n)),
    );
  }

  _drawDetails() {
    const { run } = this;
    const n = run.at;
    $("what").textContent = n < 0 ? "The beginning" : `${(n + 1).toLocaleString("en")}  ${run.kindOf(n)}`;
    $("when").textContent = n < 0 ? "" : `task ${run.task[n]}, at ${(run.time(n) / 1e9).toFixed(6)} s of the machine's time`;
    $("words").replaceChildren(...explain(run, n).map((line) => el("p", {}, line)));
    const lines = changeLines(run, this.changes);
    $("changes").replaceChildren(...lines.slice(0, 200).map((line) => el("li", {}, ...line)));
    $("changes-title").textContent = lines.length ? "What changed" : n < 0 ? "" : "Nothing that is drawn here changed.";
    $("live").textContent = n < 0 ? "before the first event" : `event ${n + 1}, ${run.kindOf(n)}, ${summary(run, n)}`;
  }

  // -- mouse and keys

  _listen() {
    const { run } = this;
    $("slider").max = run.count;
    $("position").max = run.count;
    $("of").textContent = `of ${run.count.toLocaleString("en")}`;
    $("slider").addEventListener("input", () => this.go(Number($("slider").value) - 1));
    $("position").addEventListener("change", () => this.go(Math.round(Number($("position").value)) - 1));
    $("first").addEventListener("click", () => this.go(-1));
    $("back").addEventListener("click", () => this.step(-1));
    $("forward").addEventListener("click", () => this.step(1));
    $("last").addEventListener("click", () => this.step(Infinity));
    $("theme").addEventListener("click", () => this.toggleTheme());
    $("help-button").addEventListener("click", () => $("help").showModal());
    $("help-close").addEventListener("click", () => $("help").close());
    $("fold").addEventListener("click", () => this.spaceView.setFolded(!this.spaceView.folded));
    $("zoom-in").addEventListener("click", () => this.spaceView.zoom(0.5));
    $("zoom-out").addEventListener("click", () => this.spaceView.zoom(2));
    $("zoom-all").addEventListener("click", () => this.spaceView.show(0, Infinity));
    $("spaces").addEventListener("change", () => this.chooseSpace(Number($("spaces").value)));
    let waiting = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.filter(), 120);
    });
    $("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        clearTimeout(waiting);
        this.filter();
        this.step(event.shiftKey ? -1 : 1);
      } else if (event.key === "Escape") {
        $("search").value = "";
        this.filter();
        $("events").focus();
      }
    });
    $("timeline").addEventListener("pointerdown", (event) => this._scrub(event));
    $("timeline").addEventListener("pointermove", (event) => event.buttons & 1 && this._scrub(event));
    for (const name of VIEWS) $(`tab-${name}`).addEventListener("click", () => this.setView(name));
    $("tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.setView(VIEWS[(VIEWS.indexOf(this.view) + step + VIEWS.length) % VIEWS.length]);
      $(`tab-${this.view}`).focus();
    });
    document.addEventListener("keydown", (event) => this._key(event));
    let resizing = 0;
    window.addEventListener("resize", () => {
      cancelAnimationFrame(resizing);
      resizing = requestAnimationFrame(() => this.draw());
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  _scrub(event) {
    $("timeline").setPointerCapture(event.pointerId);
    this.go(Math.floor((event.offsetX / $("timeline").clientWidth) * this.run.count));
  }

  /** Keys that work wherever the focus is, unless the focused element has its own use for them. */
  _key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.target.matches("input[type=search], input[type=number], select")) return;
    if (event.target.matches("input[type=range]") && /^(Arrow|Home|End|Page)/.test(event.key)) return;
    const { spaceView } = this;
    const area = this.run.areas(this.space).find((one) => one.number === this.selectedArea);
    const actions = {
      ArrowRight: () => this.step(event.shiftKey ? 10 : 1), ArrowLeft: () => this.step(event.shiftKey ? -10 : -1),
      n: () => this.step(1), p: () => this.step(-1),
      PageDown: () => this.step(100), PageUp: () => this.step(-100), Home: () => this.go(-1), End: () => this.step(Infinity),
      "/": () => $("search").focus(), "?": () => $("help").showModal(), t: () => this.toggleTheme(),
      1: () => this.setView("tree"), 2: () => this.setView("areas"), 3: () => this.setView("tables"), 4: () => this.setView("tasks"),
      "+": () => spaceView.zoom(0.5), "=": () => spaceView.zoom(0.5), "-": () => spaceView.zoom(2), 0: () => spaceView.show(0, Infinity),
      "[": () => spaceView.pan(-0.25), "]": () => spaceView.pan(0.25), s: () => spaceView.setFolded(!spaceView.folded),
      f: () => area && spaceView.fit(area), g: () => $("position").focus(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  // -- theme

  toggleTheme() {
    const root = document.documentElement;
    const dark = getComputedStyle(root).colorScheme === "dark";
    const system = matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark === system ? (dark ? "light" : "dark") : ""; // "": as the system has it
    try {
      localStorage.setItem("pagewalk-theme", root.dataset.theme);
    } catch {
      // A browser that keeps nothing for files: the theme then lasts as long as the page.
    }
    this.recolour();
  }

  recolour() {
    colours.refresh();
    this.draw();
  }
}

/** What an event changed, one line an object: arrays of elements and text. */
function changeLines(run, changes) {
  const lines = [];
  const objects = new Map();
  for (const change of changes) {
    const key = `${change.what} ${change.number}`;
    if (!objects.has(key)) objects.set(key, []);
    objects.get(key).push(change);
  }
  const areaName = (number) => {
    if (number === 0n) return "none";
    return run.area(Number(number) - 1).start.toString(16);
  };
  const arrow = (name, before, after) => `${name} ${before} → ${after}`;
  for (const [key, list] of objects) {
    const { what, number } = list[0];
    const by = Object.fromEntries(list.map((change) => [change.field, change]));
    const rest = [];
    for (const { field, before, after } of list) {
      if (what === "area" && !by.alive) {
        if (field === "start" || field === "end") rest.push(arrow(field, before.toString(16), after.toString(16)));
        else if (field === "flags") rest.push(arrow("flags", permissions(Number(before)), permissions(Number(after))));
        else if (field === "left" || field === "right") rest.push(arrow(`${field} child`, areaName(before), areaName(after)));
        else if (field === "red") rest.push(after ? "black → red" : "red → black");
        else if (field === "pgoff") rest.push(arrow("page offset", before.toString(16), after.toString(16)));
      } else if (what === "space" && field !== "alive") {
        rest.push(field === "top" ? arrow("root of the tree", areaName(before), areaName(after)) : arrow(field, hex(before), hex(after)));
      } else if (what === "task" && field.startsWith("slot")) {
        rest.push(arrow(`vmacache slot ${field.slice(4)}`, areaName(before), areaName(after)));
      } else if (what === "task" && ["lookups", "hits", "file", "anon", "shmem"].includes(field)) {
        rest.push(arrow({ lookups: "vmacache lookups", hits: "hits" }[field] || `${field} pages`, before, after));
      }
    }
    if (what === "area") {
      const area = run.area(number);
      const name = `area ${area.start.toString(16)}-${area.end.toString(16)}`;
      if (by.alive) rest.unshift(by.alive.after ? `is new: ${area.red ? "red" : "black"} in the tree` : "is gone");
      if (rest.length) lines.push([el("b", {}, name), " " + rest.join(", ")]);
    } else if (what === "leaf") {
      const { before, after } = by.entry;
      const names = (value) => (value ? entryBits(run, value) : "(empty)");
      const frame = after ? ` → frame ${hex(run.frame(Number(after & 0xffffffffn), Number(after >> 32n)))}` : "";
      lines.push([el("b", {}, `entry of ${run.objects.leaf.address[number].toString(16)}`), `${frame}: ${names(before)} → ${names(after)}`]);
    } else if (what === "table" && by.alive) {
      lines.push([el("b", {}, `${run.strings[run.objects.table.level[number]]} table`), ` in frame ${hex(run.objects.table.pfn[number])} ${by.alive.after ? "is linked" : "is gone"}`]);
    } else if (what === "space") {
      if (by.alive) rest.unshift(by.alive.after ? "begins" : "is gone");
      if (rest.length) lines.push([el("b", {}, `address space with root ${hex(run.objects.space.root[number])}`), " " + rest.join(", ")]);
    } else if (what === "task") {
      if (by.state) rest.unshift(by.state.after === 1n ? "begins" : "ended");
      if (rest.length) lines.push([el("b", {}, `task ${run.objects.task.pid[number]}`), " " + rest.join(", ")]);
    }
  }
  return lines;
}

async function start() {
  try {
    document.documentElement.dataset.theme = localStorage.getItem("pagewalk-theme") || "";
  } catch {
    // See toggleTheme().
  }
  try {
    const run = new Run(await unpack());
    colours.refresh();
    const app = new App(run);
    window.pagewalk = app; // for the curious, and for the tests
    const program = run.head.program.map(String).join(" ");
    $("program").textContent = program || "a trace";
    $("machine").textContent = `${run.arch.name}, pages of ${size(run.pageSize)}`;
    const notes = [];
    if (!run.head.live) notes.push("From a bare trace: it does not tell the vmacache, the kernel's own page counters, nor the accessed and dirty bits that the MMU sets by itself (pagewalk view PROGRAM does).");
    if (run.head.skipped) notes.push(`The run had ${run.head.skipped.toLocaleString("en")} events more, which are left out.`);
    $("note").textContent = notes.join(" ");
    $("note").hidden = !notes.length;
    const wanted = /^#event=(\d+)$/.exec(location.hash);
    app.filter();
    app.setView("tree");
    app.go(wanted ? Number(wanted[1]) - 1 : Math.min(run.count - 1, firstExec(run)));
    document.body.classList.remove("loading");
    app.draw();
    app.loadedAfter = performance.now(); // milliseconds since the page was asked for
  } catch (error) {
    document.body.classList.remove("loading");
    $("failure").hidden = false;
    $("failure").textContent = `The page could not be set up: ${error.message}`;
    throw error;
  }
}

/** Where there is something to see first: the first program has its memory. */
function firstExec(run) {
  for (let n = 0; n < run.count; n++) if (run.kindOf(n) === "exec") return n;
  return -1;
}

start();
