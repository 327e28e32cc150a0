"""Options of the commands that run no program of the user's: `pagewalk grade` and `pagewalk quiz`."""

from __future__ import annotations

from emu.option_values import Option, number, one_of, seconds, switch

EXERCISES = ("find_vma", "insert", "vma_merge", "unmapped_area", "cow")
TOPICS = ("translate", "tables", "faults", "find_vma", "merge", "maps", "fork")

_JSON = switch("--json", "json", "for a program to read")

TEACH_GROUPS: dict[str, tuple[tuple[str, tuple[Option, ...]], ...]] = {
    "grade": (
        (
            "The grading",
            (
                Option(
                    ("--exercise",),
                    "exercise",
                    "|".join(EXERCISES),
                    one_of(*EXERCISES),
                    "one of " + ", ".join(EXERCISES),
                    "which one FILE solves [FILE says]",
                ),
                Option(
                    ("--program",),
                    "programs",
                    "COMMAND",
                    str,
                    "a guest command",
                    "try it on this static program too; repeatable",
                ),
                Option(("--timeout",), "timeout", "S", seconds, "seconds", "for each step [60]"),
                _JSON,
            ),
        ),
    ),
    "quiz": (
        (
            "The quiz",
            (
                Option(("--seed",), "seed", "N", number, "a whole number", "which questions [0]"),
                Option(
                    ("--count",), "count", "N", lambda t: number(t, 1, 1000), "a number from 1 to 1000", "how many [10]"
                ),
                Option(
                    ("--topic",),
                    "topic",
                    "|".join(TOPICS),
                    one_of(*TOPICS),
                    "one of " + ", ".join(TOPICS),
                    "about this only",
                ),
                switch("--solve", "solve", "print the answers and why, ask nothing"),
                _JSON,
            ),
        ),
    ),
}
