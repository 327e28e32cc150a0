"""What the memory manager decides, overheard while it decides: no second version of its rules that could be wrong.

While one fault or call is explained, Python's own line tracing (sys.settrace) is on for the functions of mm/. Their
source says which lines are conditions; the line that runs next says how a condition came out. So every check that is
told was really made, in that order, with those values, and one that was not reached is not told.

    if start & (arch.page_size - 1):           a condition; values now: start = 0x401010
        raise Errno(errno.EINVAL)              this line next: refused, EINVAL. Any other line: passed

The sentence for a condition comes from `emu/explain_words.py`; one without a sentence is shown as its source.
"""

from __future__ import annotations

import ast
import os
import sys
from typing import TYPE_CHECKING, Any

from emu.explain_words import sentence
from mm.arch import U64
from mm.types import VmAreaStruct

if TYPE_CHECKING:
    from types import CodeType, FrameType


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = (  # what is overheard: memory management, the decoders of its calls, and what looks descriptors up
    os.path.join(_ROOT, "mm") + os.sep,
    *(os.path.join(_ROOT, "guest", name) for name in ("sys_mm", "sys_shm", "sys_mempolicy", "fdtable")),
)
UNTOLD = ("events.py", "types.py", "validate.py", "validate_pages.py", "mmdump.py", "peek.py")
FAULT_ERRORS = ("VM_FAULT_OOM", "VM_FAULT_SIGBUS", "VM_FAULT_HWPOISON", "VM_FAULT_SIGSEGV")
REFUSING_CALLS = ("bad_area", "force_signal", "pagefault_out_of_memory")
MAX_CHECKS = 400  # of one fault or call: a range of 60,000 areas is not told to the end


class Branch:
    """One `if` of a function: where its test, its body are, and what taking it means."""

    __slots__ = ("body", "called", "refusal", "source", "test", "values", "words")

    def __init__(self, function: str, node: ast.If) -> None:
        self.test = range(node.test.lineno, (node.test.end_lineno or node.test.lineno) + 1)
        self.body = range(node.body[0].lineno, (node.body[-1].end_lineno or node.body[-1].lineno) + 1)
        self.source = ast.unparse(node.test)
        self.refusal = refusal_of(node.body[-1])
        self.words = sentence(function, self.source, self.refusal)
        self.values = _values_in(node.test)
        self.called = [_last_name(part.func) for part in ast.walk(node.test) if isinstance(part, ast.Call)]


def refusal_of(statement: ast.stmt) -> str:
    """What a statement refuses with: an errno, a signal's code, a VM_FAULT_ bit; empty if it does not refuse."""
    if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
        called = statement.exc
        if isinstance(called.func, ast.Name) and called.func.id == "Errno" and called.args:
            return _last_name(called.args[0])
    if not isinstance(statement, ast.Return) or statement.value is None:
        return ""
    value = statement.value
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "errno":
        return value.attr
    if isinstance(value, ast.Name) and (value.id == "origbrk" or value.id in FAULT_ERRORS):
        return "the break stays" if value.id == "origbrk" else value.id
    if isinstance(value, ast.Call) and _last_name(value.func) in REFUSING_CALLS:
        codes = [arg.id for arg in value.args if isinstance(arg, ast.Name) and arg.id.startswith(("SEGV_", "BUS_"))]
        return codes[0] if codes else _last_name(value.func)
    return ""


def _last_name(node: ast.expr) -> str:
    """`errno.EINVAL` -> EINVAL."""
    return (
        node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ast.unparse(node)
    )


OWN = ("mm", "system", "arch", "info", "vma", "self", "current", "task", "mapping", "file")  # not worth naming


def _values_in(test: ast.expr) -> list[tuple[str, CodeType]]:
    """The variables and fields a condition looks at, in order: (label, compiled). Constants and functions left out."""
    found: dict[str, CodeType] = {}
    skip: set[int] = set()
    for node in ast.walk(test):
        if isinstance(node, ast.Call):
            skip.update(id(part) for part in ast.walk(node.func))
        if isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.ListComp)):
            skip.update(id(part) for part in ast.walk(node))
    for node in ast.walk(test):
        if id(node) in skip or not isinstance(node, (ast.Attribute, ast.Name, ast.Subscript)):
            continue
        skip.update(id(part) for part in ast.walk(node))
        if any(isinstance(part, ast.Call) for part in ast.walk(node)):
            continue
        label = _label(node)
        if label and label not in found:
            found[label] = compile(ast.Expression(node), "<condition>", "eval")
    return list(found.items())


def _label(node: ast.Attribute | ast.Name | ast.Subscript) -> str:
    """Short name of a value: `mm.map_count` is map_count, `rlim[RLIMIT_AS][0]` RLIMIT_AS; empty for constants."""
    if isinstance(node, ast.Subscript):
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id.startswith("RLIMIT_")]
        return names[0] if names else ""
    text = ast.unparse(node)
    if text.rsplit(".", 1)[-1].lstrip("_").isupper():
        return ""
    first, *fields = text.split(".")
    while len(fields) > 0 and first in OWN:
        first, *fields = fields
    return ".".join([first, *fields])


class Function:
    """What is known of one function's source: its conditions by line, its lines that raise."""

    __slots__ = ("branches", "filename", "name", "raises")

    def __init__(self, name: str, filename: str, node: ast.FunctionDef) -> None:
        self.name = name
        self.filename = filename
        self.branches: dict[int, Branch] = {}
        self.raises: dict[int, str] = {}
        for part in ast.walk(node):
            if isinstance(part, ast.If):
                branch = Branch(name, part)
                if branch.refusal or branch.words is not None:
                    self.branches[part.test.lineno] = branch
            elif isinstance(part, ast.Raise) and (refusal := refusal_of(part)):
                self.raises[part.lineno] = refusal


class Sources:
    """The functions of the modules that are overheard, each read once."""

    def __init__(self) -> None:
        self._files: dict[str, dict[int, ast.FunctionDef]] = {}
        self._functions: dict[CodeType, Function | None] = {}

    def function(self, code: CodeType) -> Function | None:
        """What is known of the function with this code; None when it is not one of ours."""
        if code not in self._functions:
            self._functions[code] = self._find(code)
        return self._functions[code]

    def _find(self, code: CodeType) -> Function | None:
        filename = code.co_filename
        if not filename.startswith(FOLDERS) or filename.endswith(UNTOLD) or code.co_name.startswith("<"):
            return None
        nodes = self._files.get(filename)
        if nodes is None:
            nodes = self._files[filename] = functions_of(filename)
        node = nodes.get(code.co_firstlineno)
        return None if node is None else Function(code.co_name, os.path.relpath(filename, _ROOT), node)


def functions_of(filename: str) -> dict[int, ast.FunctionDef]:
    """The functions of a source file by first line; none when the source is not there."""
    try:
        with open(filename, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError):
        return {}
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            found[first] = node
    return found


class Check:
    """A condition that came out.

    Attributes:
        function, filename: where.
        source: the condition as written.
        text: what it means, as it came out.
        values: what the condition looked at: name -> number or words.
        taken: it held.
        refusal: what the refusal is, where taking it refused; else empty.
        could_refuse: taking it would have refused.
        depth: nesting of calls.
    """

    __slots__ = ("could_refuse", "depth", "filename", "function", "refusal", "source", "taken", "text", "values")

    def __init__(
        self,
        function: Function,
        source: str,
        text: str,
        values: dict[str, str],
        taken: bool,
        refusal: str,
        depth: int,
        could_refuse: bool,
    ) -> None:
        self.could_refuse = could_refuse
        self.function = function.name
        self.filename = function.filename
        self.source = source
        self.text = text
        self.values = values
        self.taken = taken
        self.refusal = refusal
        self.depth = depth

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


class Decisions:
    """The checks and calls overheard between `start()` and `stop()`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.checks: list[Check] = []
        self.calls: list[tuple[int, str, str]] = []  # (depth, function, file), in the order they were entered
        self.results: dict[str, Any] = {}  # function -> what it last returned
        self.depth = 0
        self.watch: dict[str, Any] = {}  # function -> called with the frame where it begins
        self._before: Any = None

    def start(self) -> None:
        """Listen."""
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def stop(self) -> None:
        """Listen no more."""
        sys.settrace(self._before)

    def called(self, name: str) -> bool:
        """Whether a function of this name ran."""
        return any(function == name for _, function, _ in self.calls)

    def count(self, name: str) -> int:
        """How often."""
        return sum(function == name for _, function, _ in self.calls)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        function = self._sources.function(frame.f_code)
        if function is None:
            return None
        if len(self.calls) < MAX_CHECKS * 10:
            self.calls.append((self.depth, function.name, function.filename))
        watcher = self.watch.get(function.name)
        if watcher is not None:
            watcher(frame)
        self.depth += 1
        return Activation(self, function).trace


class Activation:
    """One call of one function while it runs."""

    __slots__ = ("_decisions", "_depth", "_function", "_last", "_pending", "_values")

    def __init__(self, decisions: Decisions, function: Function) -> None:
        self._decisions = decisions
        self._function = function
        self._depth = decisions.depth
        self._pending: Branch | None = None
        self._values: dict[str, str] = {}
        self._last: Check | None = None

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Local trace function of the frame."""
        if event == "line":
            self._line(frame, frame.f_lineno)
        elif event == "return":
            if self._pending is not None:
                self._settle(False)
            self._decisions.depth = self._depth - 1
            self._decisions.results[self._function.name] = argument
        elif event == "exception" and self._pending is not None:
            if frame.f_lineno in self._pending.test:  # what the condition called refused
                self._pending = None
        return self.trace

    def _line(self, frame: FrameType, line: int) -> None:
        pending = self._pending
        if pending is not None:
            if line in pending.test:
                return
            self._settle(line in pending.body)
        branch = self._function.branches.get(line)
        if branch is not None:
            self._pending = branch
            self._values = values_of(branch.values, frame)
            for name in branch.called:
                self._decisions.results.pop(name, None)
        elif line in self._function.raises and not (self._last is not None and self._last.taken):
            refusal = self._function.raises[line]
            self._add(Check(self._function, "", "so it is refused", {}, True, refusal, self._depth, True))

    def _settle(self, taken: bool) -> None:
        branch = self._pending
        self._pending = None
        if branch is None:
            return
        if branch.words is not None:
            text = branch.words[taken]
        else:
            text = branch.source if taken else f"not: {branch.source}"
        if text:
            for name in branch.called:
                value = value_text(name, self._decisions.results.get(name))
                if value not in ("", "none", "yes", "no"):
                    self._values[name.strip("_")] = value
            refusal = branch.refusal if taken else ""
            could = bool(branch.refusal)
            self._add(Check(self._function, branch.source, text, self._values, taken, refusal, self._depth, could))

    def _add(self, check: Check) -> None:
        self._last = check
        if len(self._decisions.checks) < MAX_CHECKS:
            self._decisions.checks.append(check)


ADDRESSES = ("addr", "address", "start", "end", "brk", "length", "offset", "_len", "size")
DECIMAL = (
    "count",
    "pages",
    "events",
    "_vm",
    "signo",
    "users",
    "pgoff",
    "grow",
    "charged",
    "limit",
    "refcount",
    "fault",
)


def values_of(values: list[tuple[str, CodeType]], frame: FrameType) -> dict[str, str]:
    """The present values of variables and fields in words; what is no number, area or nothing is left out."""
    found = {}
    for label, code in values:
        try:
            value = eval(code, frame.f_globals, frame.f_locals)  # our own source: names, fields and indexes
        except (AttributeError, NameError, TypeError, LookupError):
            continue  # the condition itself will not get that far either
        text = value_text(label.rsplit(".", 1)[-1], value)
        if text:
            found[label] = text
    return found


def value_text(name: str, value: Any) -> str:
    """One value; empty for what has no short form."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if (value < 10 and not name.endswith(ADDRESSES)) or (name.endswith(DECIMAL) and value < 1 << 40):
            return str(value)
        return "unlimited" if value == U64 and name.startswith(("RLIM", "rlim", "soft", "limit")) else f"{value:#x}"
    if isinstance(value, VmAreaStruct):
        return f"{value.vm_start:x}-{value.vm_end:x}"
    return "none" if value is None else ""
