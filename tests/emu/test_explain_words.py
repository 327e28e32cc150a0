"""Every check that can refuse has its sentence, and every sentence still has its check."""

from __future__ import annotations

import ast

import pytest
from geometry import PROJECT

from emu.explain_steps import FAULT_ERRORS, Branch, functions_of
from emu.explain_words import WORDS_OF

FILES = (
    *("guest/sys_mm.py", "guest/sys_mm_advice.py", "guest/fdtable.py", "mm/mmap.py", "mm/mprotect.py", "mm/brk.py"),
    *("mm/stack.py", "mm/util.py", "mm/vma_merge.py", "mm/vma_adjust.py", "mm/mremap.py", "mm/madvise.py"),
    *("mm/mlock.py", "mm/msync.py", "mm/mincore.py", "mm/unmapped_area.py", "mm/arch_x86_64_layout.py"),
    *("mm/arch_arm64_layout.py", "mm/arch_x86_64.py", "mm/arch_arm64.py", "mm/memory.py", "mm/memory_file.py"),
    *("mm/memory_cow.py", "mm/huge_memory.py", "mm/hugetlb.py", "mm/shmem.py", "mm/userfaultfd.py"),
    *("mm/special_mapping.py", "mm/remap_file_pages.py"),
)
# Not on the way of a fault or a memory call that is told: other calls, the ELF loader, or refusals handed on.
OTHERS = frozenset(
    """
    vm_mmap vm_brk_flags follow_hugetlb_page validate_range _first_area userfaultfd_register userfaultfd_unregister
    shmem_mmap shmem_file_setup shmem_fallocate shmem_write_begin shmem_seek memfd_add_seals shmem_write
    sys_process_madvise memfd_get_seals
    copy_hugetlb_page_range _needs_pkeys sys_pkey_alloc unused finish_mkwrite_fault _split_vma shmem_truncate
    shmem_inode_acct_block expand check_copy
    """.split()  # noqa: SIM905 - a list of forty strings is not easier to read
)
HANDED_ON = ("error", "_MASK64 + 1 - addr", "NOPAGE")


def branches(file: str) -> list[tuple[str, Branch]]:
    return [
        (node.name, Branch(node.name, part))
        for node in functions_of(str(PROJECT / file)).values()
        for part in ast.walk(node)
        if isinstance(part, ast.If)
    ]


@pytest.mark.parametrize("file", FILES)
def test_every_refusal_has_its_sentence(file: str) -> None:
    missing = [
        f"{function}: {branch.source} -> {branch.refusal}"
        for function, branch in branches(file)
        if branch.refusal and branch.words is None and function not in OTHERS and branch.refusal not in HANDED_ON
    ]
    assert not missing


def test_every_sentence_has_its_check() -> None:
    """Functions of a kind share their sentences: one of them has the check."""
    found = {(function, branch.source) for file in FILES for function, branch in branches(file)}
    sharing: dict[int, list[str]] = {}
    for function, words in WORDS_OF.items():
        sharing.setdefault(id(words), []).append(function)
    stale = [
        (functions, condition)
        for functions in sharing.values()
        for condition in WORDS_OF[functions[0]]
        if not any((function, condition.split(" -> ")[0]) in found for function in functions)
    ]
    assert not stale


def test_sentences_are_short() -> None:
    for words in WORDS_OF.values():
        for pair in words.values():
            assert len(pair) == 2 and any(pair)
            assert all(len(text) < 115 and not text.endswith(".") for text in pair)
    assert "VM_FAULT_SIGBUS" in FAULT_ERRORS
