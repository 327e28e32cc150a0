// ---- words.js: what things are called, and what an event means, in words -------------------------------------------

const VM = { READ: 1, WRITE: 2, EXEC: 4, SHARED: 8, MAYSHARE: 0x80, GROWSDOWN: 0x100 };

const VM_NAMES = [
  [0x1, "READ"], [0x2, "WRITE"], [0x4, "EXEC"], [0x8, "SHARED"], [0x10, "MAYREAD"], [0x20, "MAYWRITE"],
  [0x40, "MAYEXEC"], [0x80, "MAYSHARE"], [0x100, "GROWSDOWN"], [0x200, "UFFD_MISSING"], [0x400, "PFNMAP"],
  [0x800, "DENYWRITE"], [0x1000, "UFFD_WP"], [0x2000, "LOCKED"], [0x4000, "IO"], [0x8000, "SEQ_READ"],
  [0x10000, "RAND_READ"], [0x20000, "DONTCOPY"], [0x40000, "DONTEXPAND"], [0x80000, "LOCKONFAULT"],
  [0x100000, "ACCOUNT"], [0x200000, "NORESERVE"], [0x400000, "HUGETLB"], [0x800000, "SYNC"], [0x1000000, "ARCH_1"],
  [0x2000000, "WIPEONFORK"], [0x4000000, "DONTDUMP"], [0x10000000, "MIXEDMAP"], [0x20000000, "HUGEPAGE"],
  [0x40000000, "NOHUGEPAGE"], [0x80000000, "MERGEABLE"],
];

// The two architectures. An entry comes as two halves of 32 bits: bit n of the high half is bit n + 32.
const ARCHES = {
  x86_64: {
    name: "x86-64",
    present: (low) => (low & 0x101) !== 0, // P; or PROT_NONE, which is G without P
    inverted: (low) => (low & 0x101) === 0x100,
    writable: (low) => (low & 2) !== 0,
    dirty: (low) => (low & 0x40) !== 0,
    huge: (low) => (low & 0x80) !== 0 && (low & 0x101) !== 0,
    bits(low, high) {
      const names = [
        [1, "P"], [2, "RW"], [4, "US"], [8, "PWT"], [0x10, "PCD"], [0x20, "A"], [0x40, "D"], [0x80, "PSE"],
        [0x100, low & 1 ? "G" : "PROTNONE"], [0x200, "SPECIAL"], [0x400, "UFFD_WP"], [0x800, "SOFT_DIRTY"],
      ].filter(([bit]) => low & bit).map(([, name]) => name);
      if (high & 0x80000000) names.push("NX");
      return names;
    },
    help: "P present, RW writable, US user, A accessed, D dirty, NX no execute, PSE huge page; SOFT_DIRTY and SPECIAL are Linux's own.",
  },
  aarch64: {
    name: "arm64",
    present: (low, high) => (low & 1) !== 0 || (high & 0x4000000) !== 0,
    inverted: () => false,
    writable: (low, high) => (high & 0x80000) !== 0,
    dirty: (low, high) => (high & 0x800000) !== 0 || ((high & 0x80000) !== 0 && (low & 0x80) === 0),
    huge: (low) => (low & 3) === 1,
    bits(low, high) {
      const names = [
        [1, "VALID"], [0x40, "USER"], [0x80, "RDONLY"], [0x400, "AF"], [0x800, "nG"],
      ].filter(([bit]) => low & bit).map(([, name]) => name);
      if ((low & 3) === 1) names.splice(1, 0, "BLOCK");
      for (const [bit, name] of [
        [0x80000, "WRITE"], [0x200000, "PXN"], [0x400000, "UXN"], [0x800000, "DIRTY"], [0x1000000, "SPECIAL"],
        [0x4000000, "PROTNONE"],
      ]) {
        if (high & bit) names.push(name);
      }
      return names;
    },
    help: "VALID present, USER el0 may access, RDONLY not writable (yet), AF accessed, nG per process, PXN/UXN not executable; WRITE, DIRTY, SPECIAL and PROTNONE are Linux's own.",
  },
};

// Groups of kinds: one colour and one filter button each.
const GROUPS = [
  { name: "faults", kinds: ["fault"] },
  { name: "calls", kinds: ["syscall_enter", "syscall_exit"] },
  { name: "areas", kinds: ["vma_insert", "vma_erase", "vma_adjust", "vma_flags", "vma_merge", "vma_split"] },
  { name: "entries", kinds: ["pte_set"] },
  { name: "tables", kinds: ["page_table_alloc", "page_table_free"] },
  { name: "tasks", kinds: ["exec", "fork", "exit", "switch", "signal"] },
  { name: "other", kinds: [] },
];

const SIGNALS = "0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(" ");

const ERRNOS = { 1: "EPERM", 2: "ENOENT", 3: "ESRCH", 4: "EINTR", 5: "EIO", 6: "ENXIO", 7: "E2BIG", 8: "ENOEXEC", 9: "EBADF",
  10: "ECHILD", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT", 16: "EBUSY", 17: "EEXIST", 19: "ENODEV",
  20: "ENOTDIR", 21: "EISDIR", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE", 25: "ENOTTY", 26: "ETXTBSY", 27: "EFBIG",
  28: "ENOSPC", 29: "ESPIPE", 30: "EROFS", 31: "EMLINK", 32: "EPIPE", 33: "EDOM", 34: "ERANGE", 36: "ENAMETOOLONG",
  38: "ENOSYS", 39: "ENOTEMPTY", 40: "ELOOP", 75: "EOVERFLOW", 95: "EOPNOTSUPP", 110: "ETIMEDOUT", 512: "ERESTARTSYS",
  513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK" };

// What a fault's handler did, by `result`.
const FAULT_WORDS = {
  "anon-zero": "Nothing was ever written there, so reading must give zeroes: the one zero page of the machine was mapped, read-only. A frame of its own comes with the first write.",
  "anon": "A fresh frame of zeroes was taken and mapped: the page is anonymous, it belongs to no file.",
  "file-read": "The file's page in the page cache was mapped. Its neighbours that are in the cache already came along (fault-around), so that they will not fault.",
  "file-cow": "A write to a private mapping of a file: the file's page was copied into a frame of the process's own, and the file does not change.",
  "file-shared": "A write to a shared mapping of a file: the page-cache page itself was mapped writable, and everybody who maps the file sees the write.",
  "cow-copy": "The page is shared and only to be copied when written (copy-on-write). Others map it too, so it was copied into a new frame.",
  "cow-reuse": "The page was shared for copy-on-write, but nobody else maps it any more: its last user keeps the frame, and the entry becomes writable.",
  "access": "Only an accessed or dirty bit was missing in the entry; it was set.",
  "spurious": "The entry already allowed the access: the CPU had an old translation, or another task was faster.",
  "huge": "A huge page was mapped with one entry of the level above.",
  "special": "The page belongs to the kernel (the vDSO and its kin) and was mapped as it is.",
  "refused": "Nothing allows this access: no area is there, or the area forbids it.",
};

const MERGE_WORDS = {
  1: "the area before and the area behind both fit: all three become one", 2: "it continues the area before it, which grows",
  3: "it continues the area behind it, which grows downwards", 4: "the area before gives its end to the area behind",
  5: "the area before grows into the front of the area behind", 6: "what lay between two fitting areas goes: they become one",
  7: "the area before takes in the whole range", 8: "the area behind takes in the whole range",
};

const hex = (value) => "0x" + value.toString(16);

/** Bytes to three digits with a unit. */
function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") {
      return `${Number.isInteger(value) || value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    }
    value /= 1024;
  }
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function permissions(flags) {
  return (flags & VM.READ ? "r" : "-") + (flags & VM.WRITE ? "w" : "-") + (flags & VM.EXEC ? "x" : "-") + (flags & VM.MAYSHARE ? "s" : "p");
}

/** VM_* names; flags are a float below 2 ** 53. */
function flagNames(flags) {
  const low = flags % WORD;
  const names = VM_NAMES.filter(([bit]) => Math.floor(low / bit) % 2).map(([, name]) => name);
  const rest = Math.floor(flags / WORD);
  if (rest) names.push(hex(rest * WORD));
  return names.join(" ");
}

const entryBits = (run, value) => run.arch.bits(Number(value & 0xffffffffn), Number(value >> 32n)).join(" ");

function signalName(number) {
  return number >= 32 ? `SIGRT${number - 32}` : `SIG${SIGNALS[number] || number}`;
}

/** A system call's result as strace writes it. */
function resultText(result) {
  if (result < 0n && result >= -4095n) return `-1 ${ERRNOS[Number(-result)] || "errno " + -result}`;
  return result > 4096n ? hex(BigInt.asUintN(64, result)) : String(result);
}

function argumentsText(run, n) {
  const count = run.text(n, "name") === "mmap" ? 6 : 3;
  const words = [];
  for (let i = 0; i < count; i++) {
    const value = run.signed(n, `arg${i}`);
    words.push(value > 4096n || value < -4096n ? hex(BigInt.asUintN(64, value)) : String(value));
  }
  return words.join(", ");
}

const bounds = (run, n) => `${run.big(n, "start").toString(16)}-${run.big(n, "end").toString(16)}`;

/** One line about an event, for the list and the search. */
function summary(run, n) {
  const kind = run.kindOf(n);
  const address = () => run.big(n, "address").toString(16);
  switch (kind) {
    case "fault":
      return `${run.text(n, "access")} ${address()} ${run.text(n, "result")}${run.num(n, "signal") ? " " + signalName(run.num(n, "signal")) : ""}`;
    case "syscall_enter":
      return `${run.text(n, "name")}(${argumentsText(run, n)})`;
    case "syscall_exit":
      return `${run.text(n, "name")} = ${resultText(run.signed(n, "result"))}`;
    case "vma_insert": {
      const name = run.text(n, "name");
      return `${bounds(run, n)} ${permissions(run.num(n, "flags"))}${name ? " " + name : ""}`;
    }
    case "vma_erase": case "vma_adjust": case "vma_flags":
      return `${bounds(run, n)} ${permissions(run.num(n, "flags"))}`;
    case "vma_merge":
      return `case ${run.num(n, "case")} ${bounds(run, n)}`;
    case "vma_split":
      return `${bounds(run, n)} at ${address()}`;
    case "pte_set":
      return `${address()} ${entryBits(run, run.big(n, "new")) || "(empty)"}`;
    case "page_table_alloc": case "page_table_free":
      return `${run.text(n, "level")} ${address()} frame ${hex(run.big(n, "pfn"))}`;
    case "exec":
      return run.text(n, "path");
    case "fork":
      return `child ${run.num(n, "child")}`;
    case "exit":
      return `pid ${run.num(n, "pid")} status ${run.num(n, "status")}`;
    case "switch":
      return `to ${run.num(n, "pid")} ${run.text(n, "comm")}`;
    case "signal":
      return `${signalName(run.num(n, "signal"))} ${run.text(n, "action")}`;
    case "injected":
      return `${run.text(n, "what")} ${run.text(n, "how")}`;
    case "end":
      return run.text(n, "outcome");
    default:
      return `pid ${run.num(n, "pid") || run.task[n]}`;
  }
}

/** What the hardware reported, decoded. */
function errorWords(run, n) {
  const code = run.num(n, "error_code");
  if (run.head.arch === "aarch64") {
    const ec = Math.floor(code / 0x4000000) & 63;
    const status = code & 63;
    const what = { 1: "translation fault: an entry on the way is empty", 2: "access flag fault: the entry was never used",
      3: "permission fault: the entry forbids this access" }[status >> 2] || `fault status ${hex(status)}`;
    return `ESR ${hex(code)}: exception class ${hex(ec)} (${ec >= 0x24 ? "data" : "instruction"} abort), ${what}${status >> 2 && status < 16 ? `, at level ${status & 3}` : ""}.`;
  }
  const parts = [
    code & 1 ? "the page is present but forbids the access" : "no page is present",
    code & 2 ? "a write" : code & 16 ? "an instruction fetch" : "a read",
    code & 4 ? "from user mode" : "from kernel mode",
  ];
  return `Error code ${hex(code)}: ${parts.join(", ")}.`;
}

/** The event that wrote the entry of a fault's page: it comes shortly before the fault itself; -1: none did. */
function entryOfFault(run, n) {
  const page = Math.floor(run.num(n, "address") / run.pageSize);
  for (let i = n - 1; i >= 0 && i > n - 64; i--) {
    const kind = run.kindOf(i);
    if (kind === "fault" || kind === "switch") break;
    if (kind === "pte_set" && Math.floor(run.num(i, "address") / run.pageSize) === page) return i;
  }
  return -1;
}

function faultWords(run, n) {
  const address = run.big(n, "address");
  const user = run.num(n, "user");
  const verb = { read: "read", write: "wrote to", exec: "fetched an instruction from" }[run.text(n, "access")] || "touched";
  const lines = [`${user ? "The program" : "The kernel, for a system call,"} ${verb} ${hex(address)}, and the MMU could not translate it.`];
  const where = run.text(n, "function") || run.text(n, "object");
  if (run.has(n, "pc")) lines.push(`The instruction is at ${hex(run.big(n, "pc"))}${where ? ` (${where})` : ""}.`);
  lines.push(errorWords(run, n));
  const space = run.spaceOf(n);
  const area = run.areas(space).find((a) => a.start <= Number(address) && Number(address) < a.end);
  if (area) lines.push(`find_vma gives the area ${hex(area.start)}-${hex(area.end)} ${permissions(area.flags)}${area.name ? " " + area.name : ""}.`);
  else if (space >= 0) lines.push("find_vma gives no area that contains it.");
  if (run.num(n, "stack")) lines.push("The address lay below the stack, close enough: the stack's area grew down to it first.");
  lines.push(FAULT_WORDS[run.text(n, "result")] || `Result: ${run.text(n, "result")}.`);
  const entry = entryOfFault(run, n);
  if (entry >= 0) {
    lines.push(`Event ${entry + 1} wrote the entry: ${entryBits(run, run.big(entry, "old")) || "(empty)"} → ${entryBits(run, run.big(entry, "new")) || "(empty)"}.`);
  }
  if (run.num(n, "major")) lines.push("The page had to be read first: a major fault.");
  const signal = run.num(n, "signal");
  lines.push(signal ? `The task gets ${signalName(signal)}.` : "Then the instruction runs again, and finds its page.");
  return lines;
}

/** An event told in sentences. */
function explain(run, n) {
  if (n < 0) return ["Before the first event: no process, no memory.", "Step forward with → or by clicking an event."];
  const pid = run.has(n, "pid") ? run.num(n, "pid") : run.task[n];
  const flags = run.num(n, "flags");
  const range = `${hex(run.big(n, "start"))} to ${hex(run.big(n, "end"))} (${size(Number(run.big(n, "end") - run.big(n, "start")))})`;
  switch (run.kindOf(n)) {
    case "fault":
      return faultWords(run, n);
    case "syscall_enter":
      return [
        `Task ${pid} calls ${run.text(n, "name")} (number ${run.num(n, "number")}).`,
        run.text(n, "strace").trim() || `Its arguments are ${argumentsText(run, n)}.`,
        ...(run.num(n, "restarted") ? ["It is the same call again, after the task slept in it."] : []),
      ];
    case "syscall_exit": {
      const result = run.signed(n, "result");
      const refused = result < 0n && result >= -4095n;
      return [
        `${run.text(n, "name")} of task ${pid} ${refused ? "was refused" : "returned"}: ${resultText(result)}.`,
        ...(run.text(n, "strace").trim() ? [run.text(n, "strace").trim()] : []),
        ...(run.num(n, "injected") ? ["The call was not made: --inject or a handler answered in its place."] : []),
      ];
    }
    case "vma_insert":
      return [
        `A new area covers ${range}, ${permissions(flags)}${run.text(n, "name") ? ", of " + run.text(n, "name") : ", anonymous"}.`,
        "It was linked into the sorted list and into the red-black tree, which was rotated and recoloured where a red node got a red child.",
        "No page is mapped yet: each comes with the fault that first touches it.",
      ];
    case "vma_erase":
      return [`The area ${range} was unlinked from list and tree.`, "Its number in the vmacache is stale now: the cache's sequence number has moved on."];
    case "vma_adjust":
      return [`An area has new borders: ${range}, ${permissions(flags)}.`, "A neighbour in the way gave way. Areas keep their place in the tree when only borders move."];
    case "vma_flags":
      return [`The whole area ${range} has other flags now: ${permissions(flags)}.`, flagNames(flags)];
    case "vma_merge":
      return [`vma_merge found a neighbour that can take in ${range}: case ${run.num(n, "case")}.`, `That is: ${MERGE_WORDS[run.num(n, "case")] || "?"}.`, "The next events do it."];
    case "vma_split":
      return [`The area ${range} will be cut at ${hex(run.big(n, "address"))}.`, "One half keeps its identity and its place in the tree (vma_adjust), the other is new (vma_insert)."];
    case "pte_set": {
      const [before, after] = [run.big(n, "old"), run.big(n, "new")];
      const what = !before ? "is new" : !after ? "was cleared" : "changed";
      return [`The page-table entry of ${hex(run.big(n, "address"))} ${what}.`, `Before: ${hex(before)} ${entryBits(run, before) || "(empty)"}`, `After: ${hex(after)} ${entryBits(run, after) || "(empty)"}`, run.arch.help];
    }
    case "page_table_alloc":
      return [`A page of the tables, level ${run.text(n, "level")}, was linked in. It serves addresses from ${hex(run.big(n, "address"))} on and lies in frame ${hex(run.big(n, "pfn"))}.`, run.text(n, "level") === "pgd" ? "A root table: a new address space begins." : "The walk of the MMU can now go one level further there."];
    case "page_table_free":
      return [`The ${run.text(n, "level")} table of ${hex(run.big(n, "address"))} in frame ${hex(run.big(n, "pfn"))} was given back.`, ...(run.text(n, "level") === "pgd" ? ["It was a root table: the address space is gone."] : [])];
    case "exec":
      return [`Task ${pid} became ${run.text(n, "path")}.`, `Its old memory is gone. It starts at ${hex(run.big(n, "entry"))} with its stack at ${hex(run.big(n, "stack"))}.`, `Arguments: ${run.text(n, "argv")}`];
    case "fork":
      return flags & 0x100
        ? [`Task ${pid} made task ${run.num(n, "child")}, which shares its memory (CLONE_VM).`]
        : [`Task ${pid} forked: task ${run.num(n, "child")} has a copy of its areas and page tables.`, "No page was copied. Both map the same frames, private writable ones read-only: whoever writes first gets a copy (copy-on-write)."];
    case "exit": {
      const status = run.num(n, "status");
      return [`Task ${pid} ended ${status & 127 ? "by " + signalName(status & 127) : "with status " + ((status >> 8) & 255)}. Its memory was given back before.`];
    }
    case "switch":
      return [`The CPU goes from task ${run.num(n, "previous")} to task ${pid} (${run.text(n, "comm")}).`];
    case "signal":
      return [`${signalName(run.num(n, "signal"))} took effect on task ${pid}: ${run.text(n, "action")}.`, ...(run.num(n, "handler") ? [`Its handler is at ${hex(run.big(n, "handler"))}.`] : []), ...(run.num(n, "address") ? [`It is about address ${hex(run.big(n, "address"))}.`] : [])];
    case "tlb_flush":
      return ["The MMU forgot its translations (TLB flush): what the tables said before must not be used any more."];
    case "injected":
      return [`--inject interferes with ${run.text(n, "what")}: ${run.text(n, "how")}.`];
    case "end":
      return [`The run is over: ${run.text(n, "outcome")}.`];
    default:
      return [`An event of kind ${run.kindOf(n)}, which this page does not know.`];
  }
}
