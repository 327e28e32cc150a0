"""`pagewalk quiz`: questions about the memory of real programs, stopped in the middle.

    pagewalk quiz --seed 7                  ten questions, answered on the terminal
    pagewalk quiz --seed 7 --topic merge
    pagewalk quiz --seed 7 --solve          questions and answers, to read

The seed decides everything: which programs run on which geometry and where they stop, their addresses (ASLR), and what
is asked. Questions are made from the structures themselves (emu/quiz_pages.py, emu/quiz_areas.py), so the answer is
what happened.
"""

from __future__ import annotations

import gc
import json
import sys
from random import Random
from typing import TYPE_CHECKING, Any, TextIO

from emu import quiz_areas, quiz_pages
from emu.grade import wrapped
from emu.quiz_state import State, random_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emu.options import Options
    from emu.quiz_question import Question

KINDS: dict[str, tuple[Any, ...]] = {**quiz_pages.KINDS, **quiz_areas.KINDS}
QUESTIONS_A_STATE = 4
STATUS_WRONG = 1


def questions(seed: int, topic: str | None = None) -> Iterator[Question]:
    """Questions without end; the same for the same seed."""
    rng = Random(seed)
    asked: set[str] = set()
    while True:
        gc.collect()  # the machines before: an engine has a GiB of address space
        state = random_state(rng, rng.getrandbits(32))
        made = 0
        for _ in range(6 * QUESTIONS_A_STATE):
            question = make(state, rng, topic)
            if question is not None and question.text() not in asked:
                asked.add(question.text())
                yield question
                made += 1
                if made == QUESTIONS_A_STATE:
                    break


def make(state: State, rng: Random, topic: str | None = None) -> Question | None:
    """One question about a state; None where what was drawn by lot cannot be asked of it."""
    kind = rng.choice(KINDS[topic or rng.choice(list(KINDS))])
    question: Question | None = kind(state, rng)
    if question is None or (isinstance(question.answer, str) and len(question.choices) < 2):
        return None
    question.where = state.where
    return question


def command(options: Options) -> int:
    """`pagewalk quiz`: 0 when every answer was right, or none was wanted."""
    stream = questions(options.seed, options.topic)
    chosen = [next(stream) for _ in range(options.count)]
    if options.json:
        print(json.dumps({"seed": options.seed, "questions": [question.to_dict() for question in chosen]}, indent=2))
        return 0
    if options.solve:
        print("\n\n".join(solved(number, question) for number, question in enumerate(chosen, 1)))
        return 0
    return ask(chosen, sys.stdin)


def headed(number: int, question: Question) -> str:
    """A question with its number."""
    return f"Question {number} ({question.topic}; {question.where})\n\n{question.text()}"


def explained(question: Question) -> str:
    """The explanation, in lines that fit a terminal."""
    return "\n".join(wrapped(question.why))


def solved(number: int, question: Question) -> str:
    """Question, answer, explanation."""
    return f"{headed(number, question)}\n\nAnswer: {question.right_answer()}\n{explained(question)}"


def ask(chosen: list[Question], source: TextIO) -> int:
    """Ask, check and explain; the end of the input ends the quiz."""
    right = answered = 0
    for number, question in enumerate(chosen, 1):
        print(headed(number, question))
        print("\nYour answer: ", end="", flush=True)
        line = source.readline()
        if not line:
            print()
            break
        answered += 1
        if question.check(line):
            right += 1
            print("Right.")
        else:
            print(f"No: it is {question.right_answer()}.")
        print(f"{explained(question)}\n")
    print(
        f"{right} of {answered} right." + ("" if answered == len(chosen) else f" {len(chosen) - answered} not asked.")
    )
    return 0 if right == answered == len(chosen) else STATUS_WRONG
