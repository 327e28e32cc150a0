// ---- data.js: the recorded run, and its state at any event --------------------------------------------------------
//
// emu/page_state.py tells the idea: every field of every object (area, address space, task, table, entry) is a numbered
// cell, and an event is a list of writes to cells. To step forward is to do an event's writes, to step back is to undo
// them. Nothing here knows what an mprotect is.

const FORMAT = 1;
const WORD = 4294967296; // 2 ** 32: a cell is kept as a low and a high half

/** The compressed block in the page, unpacked: {head, words}. */
async function unpack() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old for the page: it has no DecompressionStream (2023 or newer has).");
  }
  const text = atob(document.getElementById("data").textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (head.format !== FORMAT) throw new Error(`The data is of format ${head.format}, the page of ${FORMAT}.`);
  return { head, words: new Uint32Array(buffer, 4 + length) };
}

// What is worked out of the state, and the objects it rests on: most events leave the areas alone.
const RESTS_ON = {
  areas: ["area", "space"],
  frames: ["leaf", "space"],
  residence: ["leaf", "space"],
  tables: ["table"],
  tasks: ["task"],
};

class Run {
  constructor({ head, words }) {
    this.head = head;
    this._words = words;
    this.strings = head.strings;
    this.kindNames = head.kinds.map((kind) => kind.name);
    this.kind = this._column("kind");
    this.task = this._column("task");
    this.writes = this._column("writes");
    this.count = this.kind.length;
    this.pageSize = head.page_size;
    this.arch = ARCHES[head.arch] || ARCHES.x86_64;
    this._nth = this._numberWithinKinds();
    this._fields = head.kinds.map((kind, k) => {
      const fields = Object.create(null); // a hostile trace may call a field "constructor"
      for (const name of kind.numbers) fields[name] = { low: this._column(`${k}.${name}`), high: this._column(`${k}.${name}`, 1) };
      for (const name of kind.texts) fields[name] = { low: this._column(`${k}.${name}`), high: null };
      return fields;
    });
    this._prepareWrites();
    this._prepareObjects();
    this.at = -1; // the state is that after event `at`; -1 is before the first
    this._cache = new Map(); // what was worked out of this state
  }

  // -- columns

  _column(name, half = 0) {
    const place = this.head.columns[name];
    return place ? this._words.subarray(place[0] + half * place[1], place[0] + (half + 1) * place[1]) : null;
  }

  /** A column of 64-bit numbers as floats: exact for addresses of pages and tables. */
  _wide(name) {
    const low = this._column(name);
    const high = this._column(name, 1);
    const values = new Float64Array(low.length);
    for (let i = 0; i < values.length; i++) values[i] = high[i] * WORD + low[i];
    return values;
  }

  _numberWithinKinds() {
    const seen = new Uint32Array(this.kindNames.length);
    const nth = new Uint32Array(this.count);
    for (let n = 0; n < this.count; n++) nth[n] = seen[this.kind[n]]++;
    return nth;
  }

  kindOf(n) {
    return this.kindNames[this.kind[n]];
  }

  /** Nanoseconds of the machine's own time. */
  time(n) {
    return this._column("time", 1)[n] * WORD + this._column("time")[n];
  }

  has(n, field) {
    return field in this._fields[this.kind[n]];
  }

  /** A field of an event as BigInt (unsigned), 0n where it has none. */
  big(n, field) {
    const column = this._fields[this.kind[n]][field];
    if (!column) return 0n;
    const i = this._nth[n];
    return column.high[i] ? (BigInt(column.high[i]) << 32n) | BigInt(column.low[i]) : BigInt(column.low[i]);
  }

  /** The same as a number: exact below 2 ** 53. */
  num(n, field) {
    const column = this._fields[this.kind[n]][field];
    return column ? column.high[this._nth[n]] * WORD + column.low[this._nth[n]] : 0;
  }

  signed(n, field) {
    return BigInt.asIntN(64, this.big(n, field));
  }

  /** A text field of an event. */
  text(n, field) {
    const column = this._fields[this.kind[n]][field];
    return column && !column.high ? this.strings[column.low[this._nth[n]]] : "";
  }

  // -- stepping

  /** What each write replaced, so that it can be undone: one pass over all writes. */
  _prepareWrites() {
    const cell = (this.cell = this._column("cell"));
    const low = (this.newLow = this._column("value"));
    const high = (this.newHigh = this._column("value", 1));
    const oldLow = (this.oldLow = new Uint32Array(cell.length));
    const oldHigh = (this.oldHigh = new Uint32Array(cell.length));
    const memLow = new Uint32Array(this.head.cells);
    const memHigh = new Uint32Array(this.head.cells);
    for (let i = 0; i < cell.length; i++) {
      const c = cell[i];
      oldLow[i] = memLow[c];
      oldHigh[i] = memHigh[c];
      memLow[c] = low[i];
      memHigh[c] = high[i];
    }
    this.memLow = memLow.fill(0);
    this.memHigh = memHigh.fill(0);
  }

  firstWrite(n) {
    return n <= 0 ? 0 : this.writes[n - 1];
  }

  /** Make the state that after event n. */
  go(n) {
    n = Math.max(-1, Math.min(this.count - 1, n));
    if (n === this.at) return;
    const { cell, memLow, memHigh } = this;
    const here = this.at < 0 ? 0 : this.writes[this.at];
    const there = n < 0 ? 0 : this.writes[n];
    for (let i = here; i < there; i++) {
      memLow[cell[i]] = this.newLow[i];
      memHigh[cell[i]] = this.newHigh[i];
    }
    for (let i = here - 1; i >= there; i--) {
      memLow[cell[i]] = this.oldLow[i];
      memHigh[cell[i]] = this.oldHigh[i];
    }
    this.at = n;
    this._forget(Math.min(here, there), Math.max(here, there));
  }

  /** Drop what was worked out, if it rests on a kind of object that the writes [first, last) touch. */
  _forget(first, last) {
    const touched = new Set();
    for (let i = first; i < last; i++) touched.add(this.objectKinds[this._ownerKind[this.cell[i]]]);
    for (const key of this._cache.keys()) {
      if (RESTS_ON[key.split(" ")[0]].some((what) => touched.has(what))) this._cache.delete(key);
    }
  }

  cellValue(cell) {
    return this.memHigh[cell] * WORD + this.memLow[cell];
  }

  _once(key, compute) {
    if (!this._cache.has(key)) this._cache.set(key, compute());
    return this._cache.get(key);
  }

  // -- objects

  _prepareObjects() {
    this.objects = {};
    this._ownerKind = new Uint8Array(this.head.cells);
    this._ownerNumber = new Uint32Array(this.head.cells);
    this.objectKinds = Object.keys(this.head.fields);
    this.objectKinds.forEach((what, which) => {
      const columns = (this.objects[what] = { count: 0 });
      for (const name of Object.keys(this.head.columns)) {
        if (name.startsWith(what + ".")) columns[name.slice(what.length + 1)] = this._wide(name);
      }
      columns.count = columns.cell.length;
      const width = this.head.fields[what].length;
      for (let number = 0; number < columns.count; number++) {
        for (let i = 0; i < width; i++) {
          this._ownerKind[columns.cell[number] + i] = which;
          this._ownerNumber[columns.cell[number] + i] = number;
        }
      }
    });
    const leaf = this.objects.leaf;
    this._leafRange = this.objects.space.root.length ? new Uint32Array(this.objects.space.count + 1) : new Uint32Array(1);
    for (let i = 0; i < leaf.count; i++) this._leafRange[leaf.space[i] + 1] = i + 1;
    for (let i = 1; i < this._leafRange.length; i++) {
      this._leafRange[i] = Math.max(this._leafRange[i], this._leafRange[i - 1]);
    }
  }

  /** One field of one object, now: get("area", 3, "start"). */
  get(what, number, field) {
    return this.cellValue(this.objects[what].cell[number] + this.head.fields[what].indexOf(field));
  }

  /** What event n wrote: [{what, number, field, before, after}], values as BigInt; a field twice written counts once. */
  changes(n) {
    const found = new Map();
    if (n < 0) return [];
    for (let i = this.firstWrite(n); i < this.writes[n]; i++) {
      const cell = this.cell[i];
      const after = (BigInt(this.newHigh[i]) << 32n) | BigInt(this.newLow[i]);
      const known = found.get(cell);
      if (known) {
        known.after = after;
        continue;
      }
      const what = this.objectKinds[this._ownerKind[cell]];
      const number = this._ownerNumber[cell];
      const field = this.head.fields[what][cell - this.objects[what].cell[number]];
      const before = (BigInt(this.oldHigh[i]) << 32n) | BigInt(this.oldLow[i]);
      found.set(cell, { what, number, field, before, after });
    }
    return [...found.values()].filter((change) => change.before !== change.after);
  }

  area(number) {
    const cell = this.objects.area.cell[number];
    const [start, end, flags, pgoff, name, left, right, red] = [1, 2, 3, 4, 5, 6, 7, 8].map((i) => this.cellValue(cell + i));
    const text = this.strings[name];
    return { number, start, end, flags, pgoff, file: text, name: text, left: left - 1, right: right - 1, red: red === 1 };
  }

  /** The areas of an address space in order of address, each with its depth in the tree and its gaps. */
  areas(space) {
    return this._once(`areas ${space}`, () => {
      const list = [];
      if (space < 0 || !this.get("space", space, "alive")) return list;
      const path = []; // a walk with a stack of our own: a tree can have 65,530 nodes
      let next = this.get("space", space, "top") - 1;
      let depth = 0;
      while (list.length < this.objects.area.count) {
        for (; next >= 0 && path.length < 200; next = path[path.length - 1].left) {
          path.push({ ...this.area(next), depth: depth++ });
        }
        if (!path.length) break;
        const area = path.pop();
        list.push(area);
        next = area.right;
        depth = area.depth + 1;
      }
      this._nameAreas(space, list);
      this._gaps(list);
      return list;
    });
  }

  /** [heap] and [stack], which the kernel names by where they are. */
  _nameAreas(space, list) {
    const startBrk = this.get("space", space, "start_brk");
    const brk = this.get("space", space, "brk");
    for (const area of list) {
      if (area.name) continue;
      if (brk && area.start <= brk && area.end >= startBrk) area.name = "[heap]";
      else if (area.flags & VM.GROWSDOWN) area.name = "[stack]";
    }
  }

  /** gap: free bytes below an area; subtreeGap: the largest gap of an area in the subtree (rb_subtree_gap). */
  _gaps(list) {
    const byNumber = new Map(list.map((area) => [area.number, area]));
    let previous = 0;
    for (const area of list) {
      const guard = area.flags & VM.GROWSDOWN ? 256 * this.pageSize : 0;
      area.gap = Math.max(0, area.start - guard - previous);
      previous = area.end;
    }
    for (const area of [...list].sort((a, b) => b.depth - a.depth)) {
      area.subtreeGap = area.gap;
      for (const side of [area.left, area.right]) {
        const child = byNumber.get(side);
        if (child) area.subtreeGap = Math.max(area.subtreeGap, child.subtreeGap);
      }
    }
  }

  /** The index among the sorted entries of the first one of `space` at or behind `address`. */
  leafIndex(space, address) {
    const column = this.objects.leaf.address;
    let low = this._leafRange[space];
    let high = this._leafRange[space + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (column[middle] < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Call visit(index, address, low, high) for each used entry of [start, end). */
  eachLeaf(space, start, end, visit) {
    const { address, cell } = this.objects.leaf;
    for (let i = this.leafIndex(space, start), last = this._leafRange[space + 1]; i < last && address[i] < end; i++) {
      const c = cell[i];
      if (this.memLow[c] | this.memHigh[c]) visit(i, address[i], this.memLow[c], this.memHigh[c]);
    }
  }

  /** How many entries map each frame, over all address spaces: frame -> count, only those used at all. */
  frameCounts() {
    return this._once("frames", () => {
      const counts = new Map();
      for (let space = 0; space < this.objects.space.count; space++) {
        if (!this.get("space", space, "alive")) continue;
        this.eachLeaf(space, 0, Infinity, (i, address, low, high) => {
          if (!this.arch.present(low, high)) return;
          const frame = this.frame(low, high);
          counts.set(frame, (counts.get(frame) || 0) + 1);
        });
      }
      return counts;
    });
  }

  /** The frame an entry names: bits 12 to 47 are its physical address, inverted where the CPU must not guess at it. */
  frame(low, high) {
    const pages = this.pageBytes(low, high) / this.pageSize; // a huge page begins at a multiple of its size
    if (this.arch.inverted(low, high)) [low, high] = [~low, ~high];
    const frame = Math.floor(((high & 0xffff) * WORD + ((low & 0xfffff000) >>> 0)) / this.pageSize);
    return frame - (frame % pages);
  }

  /** What a page is: "absent" (an entry that maps nothing now), "zero", "shared", "dirty", "clean". */
  pageState(low, high) {
    if (!this.arch.present(low, high)) return "absent";
    const frame = this.frame(low, high);
    if (frame === this.head.zero_frame && frame) return "zero";
    if (this.frameCounts().get(frame) > 1) return "shared";
    return this.arch.dirty(low, high) ? "dirty" : "clean";
  }

  /** Bytes an entry maps: one page, or what an entry of the PMD level does. */
  pageBytes(low, high) {
    return this.arch.huge(low, high) ? (this.pageSize / 8) * this.pageSize : this.pageSize;
  }

  /** How many pages of an address space are in which state. */
  residence(space) {
    return this._once(`residence ${space}`, () => {
      const counts = { clean: 0, dirty: 0, shared: 0, zero: 0, absent: 0 };
      if (space >= 0) {
        this.eachLeaf(space, 0, Infinity, (i, address, low, high) => {
          counts[this.pageState(low, high)] += this.pageBytes(low, high) / this.pageSize;
        });
      }
      return counts;
    });
  }

  /** Living tables of an address space, by level name then address. */
  tables(space) {
    return this._once(`tables ${space}`, () => {
      const { cell, level, address, pfn } = this.objects.table;
      const list = [];
      for (let i = 0; i < cell.length; i++) {
        if (this.objects.table.space[i] === space && this.memLow[cell[i]]) {
          list.push({ number: i, level: this.strings[level[i]], address: address[i], pfn: pfn[i] });
        }
      }
      return list.sort((a, b) => a.address - b.address);
    });
  }

  /** All tasks there were up to now. */
  tasks() {
    return this._once("tasks", () => {
      const list = [];
      for (let i = 0; i < this.objects.task.count; i++) {
        const task = { number: i, pid: this.objects.task.pid[i] };
        for (const field of this.head.fields.task) task[field] = this.get("task", i, field);
        if (!task.state) continue;
        task.space -= 1;
        task.comm = this.strings[task.comm];
        task.slots = [task.slot0, task.slot1, task.slot2, task.slot3].map((slot) => slot - 1);
        list.push(task);
      }
      return list;
    });
  }

  taskOf(pid) {
    const found = this.tasks().filter((task) => task.pid === pid);
    return found.length ? found[found.length - 1] : null;
  }

  /** The living address space of a root table's frame, or -1. */
  spaceOfRoot(root) {
    const { count } = this.objects.space;
    for (let i = count - 1; i >= 0; i--) {
      if (this.objects.space.root[i] === root && this.get("space", i, "alive")) return i;
    }
    return -1;
  }

  /** The address space that event n is about. */
  spaceOf(n) {
    if (n < 0) return -1;
    const kind = this.kindOf(n);
    if (this.has(n, "root") && kind !== "fork") return this.spaceOfRoot(this.num(n, "root"));
    const task = this.taskOf(this.has(n, "pid") ? this.num(n, "pid") : this.task[n]);
    return task ? task.space : -1;
  }
}
