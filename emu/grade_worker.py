"""The process in which one step of a grading runs: `python -m emu.grade_worker FD TASK`, started by emu/grade.py.

It limits itself (memory, core files, time), keeps what the student's code prints out of the way, and sends
[passed, text, drawing] as JSON to the descriptor FD. When the time is over, SIGALRM raises `TimeUp` in the student's
code, so that the case it hangs at can still be drawn; if that is swallowed, the parent kills the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from importlib import import_module
from typing import Any

from emu.errors import PagewalkError

MAX_LINES = 60  # of a drawing


class TimeUp(BaseException):
    """The step's time is over. No Exception, so that `except Exception` does not catch it."""


def main() -> None:
    """Run the step and send what came out."""
    channel, task = int(sys.argv[1]), json.loads(sys.argv[2])
    os.set_inheritable(channel, False)
    resource.setrlimit(resource.RLIMIT_AS, (task["memory"], task["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    sys.setrecursionlimit(2000)
    signal.signal(signal.SIGALRM, _time_up)
    signal.setitimer(signal.ITIMER_REAL, task["timeout"])
    outcome = run(task["path"], task["exercise"], task["step"], tuple(task["programs"]), task["timeout"])
    signal.setitimer(signal.ITIMER_REAL, 0)
    with os.fdopen(channel, "wb") as pipe:
        pipe.write(json.dumps(outcome).encode())
    os._exit(0)  # whatever the student's code registered or started does not matter


def _time_up(number: int, frame: Any) -> None:
    raise TimeUp


def run(path: str, exercise: str, step: str, programs: tuple[str, ...], timeout: float) -> tuple[bool, str, list[str]]:
    """(passed, what was tried or the reason, drawing) of one step. Also the way tests run a step without a process."""
    from emu.grade import EXERCISES, LOADS, load_student
    from emu.grade_world import Wrong

    student = None
    try:
        student = load_student(path, exercise)
        student.programs = programs
        if step == LOADS[0]:
            return True, "found " + ", ".join(student.functions), []
        function = next(entry[3] for entry in import_module(EXERCISES[exercise]).STEPS if entry[0] == step)
        return True, function(student), []
    except Wrong as wrong:
        more = len(wrong.drawing) - MAX_LINES
        return False, wrong.reason, wrong.drawing[:MAX_LINES] + ([f"({more} lines more)"] if more > 0 else [])
    except TimeUp:
        now = student.now() if student is not None and student.now is not None else "  while the file was loaded"
        return (
            False,
            f"it did not end within {timeout:g} s: an endless loop? This is what it was doing:",
            now.split("\n"),
        )
    except MemoryError:
        return False, "it used more memory than a step may have.", []
    except PagewalkError as error:
        return False, f"{error}.", []
    except SystemExit:
        return False, "your code ended the process that tried it (SystemExit).", []
    except Exception as error:  # noqa: BLE001 - a structure the student's code left behind can break anything
        from emu.algorithm import where_it_broke

        text = where_it_broke(error, path)
        now = student.now() if student is not None and student.now is not None else ""
        return False, f"the state your code left behind broke something: {text}.", now.split("\n")


if __name__ == "__main__":
    main()
