"""The engine alone: boot, and traps with exact codes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from bare import ARCHES, NOP, SVC, UDF, Bare, movabs


def test_boots_to_user_mode(any_cpu: Bare) -> None:
    code = b"\xb8\x27\0\0\0\x0f\x05" if any_cpu.is_x86 else [0xD28004E8, SVC]  # system call 39
    assert any_cpu.run(code) == [("syscall", 39)]
    assert any_cpu.pc == any_cpu.CODE + (7 if any_cpu.is_x86 else 8)


# ---- page faults: what the hardware tells Linux


def fault_code(cpu: Bare, code: Any) -> tuple[int, int]:
    traps = cpu.run(code, answer=lambda *_: None)
    assert len(traps) == 1
    assert traps[0][0] == "fault"
    return traps[0][1], traps[0][2]


def test_x86_error_codes(x86: Bare) -> None:
    user = x86.USER
    load, store, jump = (
        movabs(0, user + 8) + b"\x8b\x08",
        movabs(0, user + 8) + b"\x89\x08",
        movabs(0, user) + b"\xff\xe0",
    )
    assert fault_code(x86, load) == (0x4, user + 8)
    assert fault_code(x86, store) == (0x6, user + 8)
    assert fault_code(x86, jump) == (0x14, user)
    assert x86.pc == user
    x86.map(user, "r")
    assert fault_code(x86, store) == (0x7, user + 8)
    assert fault_code(x86, jump) == (0x15, user)
    kernel = 0xFFFFFFFF80000000
    assert fault_code(x86, movabs(0, kernel) + b"\x8b\x08") == (0x5, kernel)
    assert fault_code(x86, movabs(0, 0) + b"\xff\xe0") == (0x14, 0)  # a call through a null pointer is no end of run


def test_x86_accessed_and_dirty(x86: Bare) -> None:
    x86.map(x86.USER, "rw")
    x86.run(movabs(0, x86.USER) + b"\x8b\x08\x0f\x05")
    assert x86.system.words[x86.slot(x86.USER)] & 0x60 == 0x20
    x86.run(movabs(0, x86.USER) + b"\x89\x08\x0f\x05")
    assert x86.system.words[x86.slot(x86.USER)] & 0x60 == 0x60


def test_arm_syndromes(arm: Bare) -> None:
    user = arm.USER
    mov = [0xD2A20000]  # mov x0, #0x10000000
    depth = {4096: 6, 16384: 6, 65536: 7}[arm.page]  # translation fault at the level where CODE's tables end
    assert fault_code(arm, [*mov, 0xF9400401]) == (0x92000000 | depth, user + 8)  # ldr x1, [x0, #8]
    assert fault_code(arm, [*mov, 0xF9000401]) == (0x92000040 | depth, user + 8)
    assert fault_code(arm, [*mov, 0xD61F0000]) == (0x82000000 | depth, user)
    assert arm.pc == user
    arm.map(user, "r")
    assert fault_code(arm, [*mov, 0xF9000401]) == (0x9200004F, user + 8)  # permission, level 3
    assert fault_code(arm, [*mov, 0xD61F0000]) == (0x8200000F, user)
    arm.unmap(user)
    assert fault_code(arm, [*mov, 0xF9400401]) == (0x92000007, user + 8)
    arm.map(user, "rw")
    arm.system.words[arm.slot(user)] &= ~(1 << 10)
    arm.engine.flush_tlb()
    assert fault_code(arm, [*mov, 0xF9400401]) == (0x9200000B, user + 8)  # access flag, level 3
    assert fault_code(arm, [0xD61F03E0])[1] == 0  # br xzr: a call through a null pointer is no end of run


def test_arm_top_byte_is_ignored(arm: Bare) -> None:
    arm.put(arm.map(arm.USER, "rw"), b"\x2a")
    assert arm.run([0xD2A20000, 0xF2E24000, 0xF9400008, SVC]) == [("syscall", 0x2A)]  # movk x0, #0x1200, lsl #48


@pytest.mark.parametrize("name", ARCHES)
def test_a_thousand_faults_in_a_row(name: str) -> None:
    cpu = Bare(name, ram=160 << 20 if name.endswith("64k") else 32 << 20)
    page = cpu.page
    if cpu.is_x86:  # mov ecx, 1000; mov rbx, USER; l: mov byte [rbx], 1; add rbx, 4096; dec ecx; jnz l; syscall
        code: Any = (
            b"\xb9\xe8\x03\0\0" + movabs(3, cpu.USER) + b"\xc6\x03\x01\x48\x81\xc3\0\x10\0\0\xff\xc9\x75\xf2\x0f\x05"
        )
    else:  # mov x1, #1000; mov x2, USER; mov x3, page; l: strb w1, [x2]; add x2, x2, x3; subs x1, x1, #1; b.ne l; svc
        mov_page = 0xD2800003 | page << 5 if page < 65536 else 0xD2A00023
        code = [0xD2807D01, 0xD2A20002, mov_page, 0x39000041, 0x8B030042, 0xF1000421, 0x54FFFFA1, SVC]

    def answer(kind: str, *details: int) -> Any:
        if kind == "fault":
            return cpu.map(details[1] // page * page, "rw")
        return None

    traps = cpu.run(code, answer)
    assert [trap[2] for trap in traps[:-1]] == [cpu.USER + i * page for i in range(1000)]
    assert len({trap[1] for trap in traps[1:-1]}) <= 3  # levels of the walk differ, nothing else
    assert traps[-1][0] == "syscall"


def test_faulting_store_restarts_exactly(x86: Bare) -> None:
    """rep movsb over a page border: the count shows how far it came, and nothing is done twice."""
    source = x86.map(x86.USER, "r")
    x86.put(source, bytes(range(1, 33)))
    target = x86.USER + 0x2000
    pages = [x86.map(target, "rw")]
    seen = []

    def answer(kind: str, *details: int) -> Any:
        if kind == "fault":
            seen.append(x86.engine.regs[1])
            pages.append(x86.map(target + 4096, "rw"))
            return True
        return None

    code = movabs(6, x86.USER) + movabs(7, target + 4096 - 10) + b"\xb9\x20\0\0\0\xf3\xa4\x0f\x05"
    x86.run(code, answer)
    assert seen == [22]
    assert x86.get(pages[0], 10, 4086) + x86.get(pages[1], 22) == bytes(range(1, 33))


def test_push_to_absent_stack_restarts(x86: Bare) -> None:
    def answer(kind: str, *details: int) -> Any:
        return x86.map(details[1] & ~4095, "rw") if kind == "fault" else None

    traps = x86.run(movabs(4, x86.USER + 4096) + b"\x68\x11\x22\x33\x44\x58\x0f\x05", answer)  # push; pop rax
    assert traps == [("fault", 6, x86.USER + 4088), ("syscall", 0x44332211)]
    assert x86.engine.regs[4] == x86.USER + 4096


def test_arm_pair_store_restarts(arm: Bare) -> None:
    """A store of two registers whose second half is on an absent page."""
    low = arm.map(arm.USER, "rw")
    high: list[int] = []

    def answer(kind: str, *details: int) -> Any:
        if kind == "fault":
            assert details[1] == arm.USER + arm.page
            high.append(arm.map(arm.USER + arm.page, "rw"))
            return True
        return None

    # x0 = USER + page - 8; x1 = 0x11; x2 = 0x22; stp x1, x2, [x0], #16; mov x8, x0; svc
    arm.load([0xA8810801, 0xAA0003E8, SVC])
    arm.engine.regs[0], arm.engine.regs[1], arm.engine.regs[2] = arm.USER + arm.page - 8, 0x11, 0x22
    traps = arm.run(answer=answer)
    assert traps[-1] == ("syscall", arm.USER + arm.page + 8)  # written back once
    assert arm.get(low, 8, arm.page - 8) + arm.get(high[0], 8) == struct.pack("<QQ", 0x11, 0x22)


def test_instruction_over_a_page_border(x86: Bare) -> None:
    """Its second half is absent: the fault names the second page, and the instruction runs once that is there."""
    x86.load(b"\x90\xb8\x44\x33", at=4092)

    def answer(kind: str, *details: int) -> Any:
        if kind == "fault":
            assert details == (0x14, x86.CODE + 4096)
            assert x86.pc == x86.CODE + 4093
            return x86.put(x86.map(x86.CODE + 4096, "rx"), b"\x22\x11\x0f\x05") or True
        return None

    traps = x86.run(answer=answer)
    assert traps[-1] == ("syscall", 0x11223344)
    # remapped: other bytes in the second half
    x86.put(x86.map(x86.CODE + 4096, "rx"), b"\x66\x55\x0f\x05")
    x86.engine.regs[x86.engine.PC] = x86.CODE + 4092
    x86.engine.flush_tlb()
    x86.traps.clear()
    assert x86.run() == [("syscall", 0x55663344)]


def test_early_fetch_fault_of_a_block(x86: Bare) -> None:
    """What stands before the border is done before the fault: stores, their own faults first, PUSHF without a trace."""
    # mov rbx, USER (10); mov byte [rbx], 1 (3); pushfq (1); add eax, 1 (3): the page ends
    code = movabs(3, x86.USER) + b"\xc6\x03\x01\x9c\x83\xc0\x01"
    x86.load(code, at=4096 - len(code))
    stack = x86.STACK
    order: list[Any] = []

    def answer(kind: str, *details: int) -> Any:
        order.append((kind, *details, x86.pc))
        if details[1] == x86.USER:
            return x86.map(x86.USER, "rw")
        pushed = x86.get(x86.system.words[x86.slot(stack)] >> 12 & 0xFFFFFFFFFF, 8, 2048 - 8)
        assert pushed == struct.pack("<Q", 0x202)
        assert x86.engine.get_flags() == 0x202
        assert x86.engine.regs[0] == 1
        return None

    x86.run(answer=answer)
    border = x86.CODE + 4096
    assert order == [("fault", 6, x86.USER, border - 7), ("fault", 0x14, border, border)]


def test_block_that_runs_into_an_absent_page(any_cpu: Bare) -> None:
    cpu = any_cpu
    nop = b"\x90" if cpu.is_x86 else struct.pack("<I", NOP)
    cpu.load(nop * (16 // len(nop)), at=cpu.page - 16)

    def answer(kind: str, *details: int) -> Any:
        if kind == "fault":
            assert cpu.pc == details[1] == cpu.CODE + cpu.page
            cpu.put(cpu.map(cpu.CODE + cpu.page, "rx"), b"\x0f\x05" if cpu.is_x86 else struct.pack("<I", SVC))
            return True
        return None

    assert [trap[0] for trap in cpu.run(answer=answer)] == ["fault", "syscall"]


# ---- system calls


def test_syscall_sets_rcx_and_r11(x86: Bare) -> None:
    # stc; std; syscall
    x86.run(b"\xf9\xfd\x0f\x05")
    assert x86.engine.regs[1] == x86.CODE + 4
    assert x86.engine.regs[11] == 0x202 | 0x401
    # through arithmetic flags that QEMU keeps lazily: xor eax, eax; sub eax, 1; syscall
    x86.run(b"\x31\xc0\x83\xe8\x01\x0f\x05")
    assert x86.engine.regs[11] == 0x202 | 0x95  # CF PF AF SF


def test_svc_changes_nothing(arm: Bare) -> None:
    arm.load([0xEB00001F, 0xD28000A8, SVC])  # cmp x0, x0
    before = [(i << 8) + 7 for i in range(31)]
    arm.engine.regs[:31] = memoryview(struct.pack("<31Q", *before)).cast("Q")
    arm.run()
    before[8] = 5
    assert list(arm.engine.regs[:31]) == before
    assert arm.engine.get_flags() == 0x60000000


def test_syscall_result_and_jump(any_cpu: Bare) -> None:
    """A handler sets the result register and moves the program counter, as sigreturn does."""
    cpu = any_cpu
    regs, pc = cpu.engine.regs, cpu.engine.PC
    number = 0 if cpu.is_x86 else 8
    calls = []

    def answer(kind: str, value: int) -> Any:
        calls.append((kind, value))
        if len(calls) == 1:
            regs[pc] = cpu.CODE + 0x100
            regs[number] = 0x77
            return True
        return None

    if cpu.is_x86:
        cpu.load(b"\xb8\x05\0\0\0\x0f\x05\xf4")
        cpu.put(cpu.code, b"\x83\xc0\x01\x0f\x05", 0x100)  # add eax, 1; syscall
    else:
        cpu.load([0xD28000A8, SVC, UDF])
        cpu.put(cpu.code, struct.pack("<II", 0x91000508, SVC), 0x100)  # add x8, x8, #1; svc
    cpu.run(answer=answer)
    assert calls == [("syscall", 5), ("syscall", 0x78)]


def test_leaving_on_a_syscall_keeps_the_counter(any_cpu: Bare) -> None:
    """Left at a system call and resumed, the next instruction runs exactly once."""
    cpu = any_cpu
    if cpu.is_x86:
        cpu.load(b"\xb8\0\0\0\0" + b"\x0f\x05\x83\xc0\x01" * 3 + b"\x0f\x05")
    else:
        cpu.load([0xD2800008, *[SVC, 0x91000508] * 3, SVC])
    for i in range(4):
        assert cpu.run()[-1] == ("syscall", i)


# ---- other exceptions


def only(cpu: Bare, code: Any) -> tuple[Any, ...]:
    traps = cpu.run(code, answer=lambda *_: None)
    assert len(traps) == 1
    return (*traps[0], cpu.pc - cpu.CODE)


@pytest.mark.parametrize(
    ("code", "vector", "error", "offset"),
    [
        ("90 0f0b", 6, 0, 1),  # ud2
        ("90 06", 6, 0, 1),  # push es
        ("31c9 f7f1", 0, 0, 2),  # div ecx
        ("90 cc", 3, 0, 2),  # int3 is a trap: behind it
        ("90 cd03", 3, 0, 3),
        ("90 cd04", 4, 0, 3),
        ("90 cd80", 13, 0x402, 1),  # no IA32 emulation: the gate is closed
        ("90 cd0e", 13, 0x72, 1),  # int 14 is no page fault
        ("90 cd01", 13, 0x0A, 1),
        ("90 f4", 13, 0, 1),  # hlt
        ("90 fa", 13, 0, 1),  # cli
        ("90 e460", 13, 0, 1),  # in al, 0x60
        ("90 ec", 13, 0, 1),  # in al, dx
        ("90 e660", 13, 0, 1),  # out 0x60, al
        ("90 0f32", 13, 0, 1),  # rdmsr
        ("90 0f20c0", 13, 0, 1),  # mov rax, cr0
        ("90 0f34", 6, 0, 1),  # sysenter: not in the long mode of an AMD CPU
        ("b808000000 8ee0", 13, 8, 5),  # mov fs, kernel selector
    ],
)
def test_x86_exceptions(code: str, vector: int, error: int, offset: int) -> None:
    cpu = Bare("x86_64-4k")
    assert only(cpu, bytes.fromhex(code.replace(" ", ""))) == ("exception", vector, error, 0, offset)


def test_user_may_load_user_selectors(x86: Bare) -> None:
    assert only(x86, b"\xb8\x2b\0\0\0\x8e\xe0\x8e\xd8\x0f\x05")[0] == "syscall"


def test_non_canonical_address(x86: Bare) -> None:
    address = 1 << 63
    assert only(x86, movabs(0, address) + b"\x8b\x00")[:3] == ("exception", 13, 0)
    assert only(x86, movabs(0, 1 << 47) + b"\x8b\x00")[0] == (
        "fault" if len(x86.system.arch.level_shifts) == 5 else "exception"
    )


def test_x87_error_is_reported_at_the_next_wait(x86: Bare) -> None:
    # fninit; unmask division by zero; fld1; fldz; fdivp; wait
    code = bytes.fromhex("dbe3 66c70424 7b03 d92c24 d9e8 d9ee def9 9b 0f05".replace(" ", ""))
    kind, vector, *_ = only(x86, code)
    assert (kind, vector) == ("exception", 16)


def test_single_step_flag(x86: Bare) -> None:
    steps = []

    def answer(kind: str, *details: int) -> Any:
        steps.append((details[0], x86.pc - x86.CODE))
        return None if len(steps) == 3 else True

    x86.run(b"\x9c\x81\x0c\x24\0\x01\0\0\x9d\x90\x90\x90\x90", answer)
    assert steps == [(1, 10), (1, 11), (1, 12)]


def test_port_access_leaves_no_trace_behind_it(x86: Bare) -> None:
    """IN does not end a translated block: what follows it must not have happened."""
    page = x86.map(x86.USER, "rw")
    x86.run(movabs(3, x86.USER) + b"\xe4\x60\xc6\x03\x01\x0f\x05", answer=lambda *_: None)
    assert x86.traps == [("exception", 13, 0, 0)]
    assert x86.get(page, 1) == b"\0"
    x86.engine.regs[x86.engine.PC] = x86.CODE + 12
    assert x86.run()[-1][0] == "syscall"
    assert x86.get(page, 1) == b"\x01"


@pytest.mark.parametrize(
    ("word", "esr", "offset"),
    [
        (0xD4200020, 0xF2000001, 4),  # brk #1: at it
        (UDF, 0x02000000, 4),
        (0xFFFFFFFF, 0x02000000, 4),
        (0xD4000002, 0x02000000, 4),  # hvc
        (0xD4000003, 0x02000000, 4),  # smc
        (0xD5380000, 0x02000000, 4),  # mrs x0, midr_el1
        (0xD69F03E0, 0x02000000, 4),  # eret
        (0xD53BE040, 0x6234F801, 4),  # mrs x0, cntvct_el0: the kernel answers
        (0xD50342DF, 0x02000000, 4),  # msr daifset
    ],
)
def test_arm_exceptions(word: int, esr: int, offset: int) -> None:
    cpu = Bare("aarch64-4k")
    kind, found, *_, pc = only(cpu, [NOP, word])
    assert (kind, found, pc) == ("exception", esr, offset)


def test_arm_alignment(arm: Bare) -> None:
    arm.map(arm.USER, "rw")
    assert fault_code(arm, [0xD2A20000, 0x91000400, 0xC85F7C01]) == (0x92000021, arm.USER + 1)  # ldxr x1, [x0]
    arm.run([0xD2A20000, 0x91000400, 0xF9400001, SVC])  # ldr copes
    assert arm.traps[-1][0] == "syscall"
    arm.load([0xD61F0000])
    arm.engine.regs[0] = arm.CODE + 2
    arm.run()
    assert arm.traps == [("exception", 0x8A000000, arm.CODE + 2)]


def test_arm_user_can_read_what_linux_allows(arm: Bare) -> None:
    # mrs x0, ctr_el0; mrs x0, dczid_el0; ic ivau; dc cvau; svc
    arm.load([0xD53B0020, 0xD53B00E0, 0xD50B7521, 0xD50B7B21, 0xD503207F, SVC])
    arm.engine.regs[1] = arm.CODE
    arm.run()
    while not arm.traps:  # wfi halts the engine; it only has to be started again
        arm.run()
    assert arm.traps[-1][0] == "syscall"
