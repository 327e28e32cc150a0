"""A trace made by hand, as long as one likes: areas come, are touched, and go, as in the run of a busy allocator."""

import json
import random

ROOT = 0x100
BASE = 0x7F0000000000
AREA_PAGES = 64
FLAGS = 0x100073  # rw-p


def trace(events, seed=1, names=("",)):
    """The lines of a trace of about so many events: faults, calls, areas, entries; deterministic.

    Args:
        names: of the areas, in turn.
    """
    rng = random.Random(seed)
    head = {"schema": "pagewalk-trace", "version": 1, "program": ["made by hand"]}
    yield json.dumps(head)
    number = 0
    areas, frame = {}, 0x1000

    def event(kind, **fields):
        nonlocal number
        number += 1
        return json.dumps({"n": number, "time": 10**9 + 70 * number, "task": 27, "kind": kind, **fields})

    yield event("page_table_alloc", level="pgd", address=0, pfn=ROOT, root=ROOT)
    yield event("exec", pid=27, path="/made-by-hand", argv=["made-by-hand"], entry=1, stack=2, root=ROOT,
                arch="x86_64", page_size=4096)  # fmt: skip
    while number < events:
        if len(areas) < 20 or (rng.random() < 0.05 and len(areas) < 1500):
            start = BASE + rng.randrange(1 << 14) * AREA_PAGES * 4096
            if start in areas:
                continue
            args = [0, AREA_PAGES * 4096, 3, 34, (1 << 64) - 1, 0]
            yield event("syscall_enter", pid=27, number=9, name="mmap", args=args, restarted=False)
            areas[start] = {}
            yield event("vma_insert", start=start, end=start + AREA_PAGES * 4096, flags=FLAGS, root=ROOT, pgoff=0,
                        name=names[number % len(names)])  # fmt: skip
            yield event("syscall_exit", pid=27, number=9, name="mmap", args=args, result=start, injected=False)
        elif rng.random() < 0.01:
            start = rng.choice(list(areas))
            for address, entry in areas.pop(start).items():
                yield event("pte_set", root=ROOT, address=address, old=entry, new=0)
            yield event("vma_erase", start=start, end=start + AREA_PAGES * 4096, flags=FLAGS, root=ROOT)
        else:
            start = rng.choice(list(areas))
            address = start + rng.randrange(AREA_PAGES) * 4096
            if address in areas[start]:
                continue
            frame += 1
            areas[start][address] = entry = frame << 12 | 0x8000000000000067
            yield event("pte_set", root=ROOT, address=address, old=0, new=entry)
            yield event("fault", pid=27, address=address + rng.randrange(4096), error_code=6, access="write",
                        result="anon", major=False, stack=False, signal=0, user=True)  # fmt: skip
