"""A question: what is shown, what is asked, the one right answer, and why."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

LETTERS = "abcd"


class Question:
    """One question of the quiz.

    Attributes:
        topic: one of emu.options_teach.TOPICS; `kind` is finer, one for each function that makes questions.
        where: geometry and program, `aarch64-16k, cow`.
        shown: lines of real state.
        asked: the question.
        choices: what there is to choose from; empty when a number is asked for.
        answer: the right choice, or the number.
        base: 16 or 10: how a number is written.
        why: the explanation.
        facts: what the question was made from, for those who want to work it out again.
    """

    __slots__ = ("answer", "asked", "base", "choices", "facts", "kind", "shown", "topic", "where", "why")

    def __init__(
        self,
        topic: str,
        kind: str,
        shown: list[str],
        asked: str,
        answer: str | int,
        why: str,
        choices: tuple[str, ...] = (),
        base: int = 10,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.topic = topic
        self.kind = kind
        self.where = ""
        self.shown = shown
        self.asked = asked
        self.choices = choices
        self.answer = answer
        self.base = base
        self.why = why
        self.facts = facts or {}

    def text(self) -> str:
        """Everything the student sees before answering."""
        lines = [f"  {line}" for line in self.shown]
        lines += ["", *wrap(self.asked + (" (in hexadecimal)" if self.base == 16 else ""), 100)]
        lines += [f"  {letter}) {choice}" for letter, choice in zip(LETTERS, self._indented(), strict=False)]
        return "\n".join(lines)

    def _indented(self) -> list[str]:
        return [choice.replace("\n", "\n     ") for choice in self.choices]

    def right_answer(self) -> str:
        """As it is written: `b`, `0x1f000` or `12`."""
        if self.choices:
            return LETTERS[self.choices.index(str(self.answer))]
        return f"{self.answer:#x}" if self.base == 16 else str(self.answer)

    def check(self, text: str) -> bool:
        """Is `text` the right answer? Hexadecimal numbers may come with or without 0x."""
        word = text.strip().lower().rstrip(")")
        if self.choices:
            return word == self.right_answer()
        try:
            return int(word, 0 if self.base == 10 and word.startswith("0x") else self.base) == self.answer
        except ValueError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "topic": self.topic,
            "kind": self.kind,
            "where": self.where,
            "shown": self.shown,
            "asked": self.asked,
            "choices": list(self.choices),
            "answer": self.right_answer(),
            "why": self.why,
        }


def choices_of(rng: Random, right: str, wrong: Iterable[str], most: int = 4) -> tuple[str, ...]:
    """The right answer among up to three others, in random order; empty when there is nothing else to choose from."""
    others = [text for text in dict.fromkeys(wrong) if text != right]
    if not others:
        return ()
    picked = [right, *rng.sample(others, min(most - 1, len(others)))]
    rng.shuffle(picked)
    return tuple(picked)
