"""The engine alone: boot, traps with exact codes, task state, code cache, stops, calibration."""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import pytest
from bare import ARCHES, ARM, X86, Bare

from emu.counter import BLOCK_INSTRUCTIONS
from emu.errors import EngineError, PagewalkError

NOP, UDF = 0xD503201F, 0
SVC = 0xD4000001
NX = 1 << 63


def movabs(register: int, value: int) -> bytes:
    """mov r, imm64 for rax..rdi."""
    return bytes([0x48, 0xB8 + register]) + struct.pack("<Q", value)


@pytest.fixture(params=ARCHES)
def any_cpu(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.fixture(params=X86)
def x86(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.fixture(params=ARM)
def arm(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


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


# ---- task state


def test_two_tasks(any_cpu: Bare) -> None:
    """Registers, flags, TLS and FPU of two states survive switching to and fro."""
    cpu = any_cpu
    engine = cpu.engine
    if cpu.is_x86:  # l: add rax, 1; movq xmm7, rax; cmp rax, 0; syscall; jmp l
        cpu.load(b"\x48\x83\xc0\x01\x66\x48\x0f\x6e\xf8\x48\x83\xf8\0\x0f\x05\xeb\xef")
    else:  # l: add x8, x8, #1; fmov d7, x8; cmp x8, #0; svc; b l
        cpu.load([0x91000508, 0x9E670107, 0xF100011F, SVC, 0x17FFFFFC])
    counter = 0 if cpu.is_x86 else 8
    start = engine.save_state()
    states = []
    for i in range(2):
        engine.load_state(start)
        engine.regs[counter] = 1000 * i
        engine.set_tls(0x7000 + i)
        engine.set_gs(0x8000 + i)
        states.append(engine.save_state())
    for turn in range(1, 4):
        for i in range(2):
            engine.load_state(states[i])
            cpu.traps.clear()
            assert cpu.run() == [("syscall", 1000 * i + turn)]
            assert engine.get_tls() == 0x7000 + i
            assert engine.get_gs() == (0x8000 + i if cpu.is_x86 else 0)
            at = 160 + 7 * 16 if cpu.is_x86 else 7 * 16
            assert engine.get_fpu()[at : at + 8] == struct.pack("<Q", 1000 * i + turn)
            states[i] = engine.save_state()


def test_fpu_images(any_cpu: Bare) -> None:
    engine = any_cpu.engine
    fresh = engine.get_fpu()
    if any_cpu.is_x86:
        assert fresh[:32] == b"\x7f\x03" + bytes(22) + b"\x80\x1f\0\0\xff\xff\0\0"
        assert fresh[32:416] == bytes(384)
        # fld1; fldpi; stmxcsr/ldmxcsr with round up; movq xmm15, rsp
        any_cpu.run(b"\xd9\xe8\xd9\xeb\xc7\x04\x24\x80\x5f\0\0\x0f\xae\x14\x24\x66\x4c\x0f\x6e\xfc\x0f\x05")
        image = engine.get_fpu()
        assert image[2:5] == b"\x00\x30\xc0"  # top of stack 6: registers 6 and 7 in use
        assert image[32:42] == bytes.fromhex("35c26821a2da0fc90040")
        assert image[48:58] == bytes.fromhex("0000000000000080ff3f")
        assert image[24:28] == b"\x80\x5f\0\0"
        assert image[160 + 240 : 168 + 240] == struct.pack("<Q", engine.regs[4])
    else:
        assert fresh == bytes(528)
        # fmov d31, #1.0; mov x0, #0x1000000; msr fpcr, x0
        any_cpu.run([0x1E6E101F, 0xD2A02000, 0xD51B4400, SVC])
        image = engine.get_fpu()
        assert image[31 * 16 : 32 * 16] == struct.pack("<dd", 1.0, 0)
        assert image[512:520] == struct.pack("<II", 0, 0x1000000)
    engine.reset_state()
    assert engine.get_fpu() == fresh
    engine.set_fpu(image)
    assert engine.get_fpu() == image


def test_rounding_mode_of_a_restored_image_is_used(x86: Bare) -> None:
    image = bytearray(x86.engine.get_fpu())
    image[24:28] = b"\x80\x5f\0\0"  # round up
    x86.load(
        movabs(0, struct.unpack("<Q", struct.pack("<d", 1.25))[0]) + b"\x66\x48\x0f\x6e\xc0\xf2\x48\x0f\x2d\xc0\x0f\x05"
    )
    x86.engine.set_fpu(bytes(image))
    assert x86.run() == [("syscall", 2)]


def test_only_user_flags_can_be_set(any_cpu: Bare) -> None:
    engine = any_cpu.engine
    engine.set_flags(0xFFFFFFFF)
    assert engine.get_flags() == (0x240FD7 if any_cpu.is_x86 else 0xF0000000)
    engine.set_flags(0)
    assert engine.get_flags() == (0x202 if any_cpu.is_x86 else 0)


def test_a_switch_of_tables_forgets_the_old_ones(any_cpu: Bare) -> None:
    cpu = any_cpu
    first, second = cpu.map(cpu.USER, "rw"), cpu.frame()
    cpu.put(first, b"\x0b")
    cpu.put(second, b"\x16")
    if cpu.is_x86:
        code: Any = movabs(3, cpu.USER) + b"\x8b\x03\x0f\x05\xeb\xfa"
    else:
        code = [0xD2A20000, 0xF9400008, SVC, 0x17FFFFFE]
    assert cpu.run(code) == [("syscall", 0x0B)]
    from bare import Mm

    old, old_code = cpu.mm, cpu.code
    cpu.mm = cpu.current.mm = Mm(cpu)
    cpu.map(cpu.CODE, "rx", old_code)
    cpu.map(cpu.USER, "rw", second)
    cpu.engine.set_root(cpu.mm.pgd)
    assert cpu.run()[-1] == ("syscall", 0x16)
    cpu.mm = cpu.current.mm = old
    cpu.engine.set_root(old.pgd)
    assert cpu.run()[-1] == ("syscall", 0x0B)


# ---- TLB and code cache


def test_one_flush_after_tightening(any_cpu: Bare) -> None:
    """A cleared entry faults once the trap's flush is done, in the hook and without leaving the engine."""
    cpu = any_cpu
    cpu.map(cpu.USER, "rw")
    if cpu.is_x86:
        code: Any = movabs(3, cpu.USER) + b"\x8b\x03\x0f\x05\x8b\x03"
    else:
        code = [0xD2A20000, 0xF9400001, SVC, 0xF9400001]

    def answer(kind: str, *_: int) -> Any:
        if kind == "syscall":
            cpu.unmap(cpu.USER)
            cpu.mm.tlb_flush_pending = True
            return True
        return None

    traps = cpu.run(code, answer)
    assert [trap[0] for trap in traps] == ["syscall", "fault"]
    assert not cpu.mm.tlb_flush_pending


def test_code_written_by_the_host(any_cpu: Bare) -> None:
    """A frame that held translated code gets new bytes and is named in icache_pending."""
    cpu = any_cpu
    program = (
        (lambda n: b"\xb8" + struct.pack("<I", n) + b"\x0f\x05\xeb\xf7")
        if cpu.is_x86
        else (lambda n: struct.pack("<III", 0xD2800008 | n << 5, SVC, 0x17FFFFFE))
    )
    calls: list[int] = []

    def answer(kind: str, value: int) -> Any:
        calls.append(value)
        if len(calls) == 4:
            return None
        if len(calls) == 2:
            cpu.put(cpu.code, program(9))
            cpu.mm.icache_pending.append(cpu.CODE)
            cpu.mm.icache_pending.append(cpu.USER)  # absent by now: must do no harm
        return True

    cpu.run(program(5), answer)
    assert calls == [5, 5, 9, 9]
    assert cpu.mm.icache_pending == []


def test_code_written_by_the_guest(x86: Bare) -> None:
    """Self-modifying code: a store to a translated page is seen by the next instruction."""
    page = x86.map(x86.USER, "rwx")
    # mov eax, 1; (the next store changes the immediate of the mov behind it) mov byte [rip+1], 7; mov eax, 2; syscall
    x86.put(page, b"\xb8\x01\0\0\0\xc6\x05\x01\0\0\0\x07\xb8\x02\0\0\0\x0f\x05")
    x86.load(movabs(0, x86.USER) + b"\xff\xe0")
    assert x86.run() == [("syscall", 7)]


# ---- stops and errors


def spin(cpu: Bare) -> None:
    cpu.load(b"\xeb\xfe" if cpu.is_x86 else [0x14000000])


def test_stop_from_another_thread(any_cpu: Bare) -> None:
    spin(any_cpu)
    timer = threading.Timer(0.05, any_cpu.engine.stop)
    timer.start()
    start = time.monotonic()
    any_cpu.run()
    timer.join()
    assert 0.04 < time.monotonic() - start < 2
    assert any_cpu.pc == any_cpu.CODE
    assert any_cpu.traps == []


def test_stops_lose_no_system_call(any_cpu: Bare) -> None:
    """Stopped again and again at odd moments, a loop of system calls counts without a gap."""
    cpu = any_cpu
    seen: list[int] = []

    def answer(_: str, value: int) -> Any:
        seen.append(value)
        return True

    cpu.load(b"\x31\xc0\xff\xc0\x0f\x05\xeb\xfa" if cpu.is_x86 else [0xD2800008, 0x91000508, SVC, 0x17FFFFFE])
    cpu.answer = answer
    over = threading.Event()

    def pest() -> None:
        while not over.wait(0.0007):
            cpu.engine.stop()

    thread = threading.Thread(target=pest)
    thread.start()
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        cpu.run()
    over.set()
    thread.join()
    assert len(seen) > 100
    assert seen == list(range(1, len(seen) + 1))


def test_counted_run(any_cpu: Bare) -> None:
    cpu = any_cpu
    cpu.load(b"\x83\xc0\x01\xeb\xfb" if cpu.is_x86 else [0x91000508, 0x17FFFFFF])
    register = 0 if cpu.is_x86 else 8
    cpu.run(count=1001)
    assert cpu.engine.executed(1001) == 1001
    assert cpu.engine.regs[register] == 501
    cpu.run(count=1)  # the branch
    assert (cpu.engine.executed(1), cpu.engine.regs[register]) == (1, 501)
    cpu.run(count=1)
    assert cpu.engine.regs[register] == 502


def test_code_that_ran_uncounted_is_counted(any_cpu: Bare) -> None:
    """A loop translated before there was a counter does not escape it."""
    cpu = any_cpu
    cpu.load(b"\x83\xc0\x01\xeb\xfb" if cpu.is_x86 else [0x91000508, 0x17FFFFFF])
    for exact in (True, False):
        timer = threading.Timer(0.02, cpu.engine.stop)
        timer.start()
        cpu.engine.run()
        timer.join()
        watchdog = threading.Timer(5, cpu.engine.stop)
        watchdog.start()
        start = cpu.engine.regs[0 if cpu.is_x86 else 8]
        cpu.engine.run(1000, exact)
        assert watchdog.is_alive()
        watchdog.cancel()
        assert cpu.engine.executed(1000) == 1000
        assert cpu.engine.regs[0 if cpu.is_x86 else 8] - start == (500 if exact else 1000 // BLOCK_INSTRUCTIONS)


def test_blocks_are_counted(any_cpu: Bare) -> None:
    cpu = any_cpu
    cpu.load(b"\x83\xc0\x01\xeb\xfb" if cpu.is_x86 else [0x91000508, 0x17FFFFFF])
    register = 0 if cpu.is_x86 else 8
    cpu.engine.run(10 * BLOCK_INSTRUCTIONS, False)
    assert cpu.engine.executed(10 * BLOCK_INSTRUCTIONS) == 10 * BLOCK_INSTRUCTIONS
    assert cpu.engine.regs[register] == 10
    cpu.engine.run(1, False)  # at least one
    assert cpu.engine.regs[register] == 11
    cpu.engine.run(3)  # and back: exactly
    assert (cpu.engine.executed(3), cpu.engine.regs[register]) == (3, 13)


def test_counting_and_not_counting_take_turns(any_cpu: Bare) -> None:
    """Neither loses a trap when the engine changes over."""
    cpu = any_cpu
    for code in (b"\x90\x0f\x0b", b"\x90\xcc", b"\x31\xdb\x8b\x03") if cpu.is_x86 else ([NOP, UDF], [NOP, 0xD4200020]):
        for count in (0, 1000, 0, 0, 1000, 1000, 0):
            cpu.load(code)
            cpu.run(count=count, answer=lambda *_: None)
            assert len(cpu.traps) == 1


def test_counted_run_that_leaves_early(any_cpu: Bare) -> None:
    cpu = any_cpu
    cpu.load(b"\x90\x90\x90\x0f\x05" if cpu.is_x86 else [NOP, NOP, NOP, SVC])
    cpu.run(count=100000)
    assert cpu.engine.executed(100000) == 4


def test_an_exception_in_a_hook_surfaces(any_cpu: Bare) -> None:
    class Oops(Exception):
        pass

    def answer(*_: Any) -> Any:
        raise Oops("in a handler")

    with pytest.raises(Oops, match="in a handler"):
        any_cpu.run(b"\x0f\x05" if any_cpu.is_x86 else [SVC], answer)
    assert (
        any_cpu.run(b"\x0f\x05" if any_cpu.is_x86 else [SVC], lambda *_: None)[-1][0] == "syscall"
    )  # and it still works


def test_unknown_model() -> None:
    with pytest.raises(PagewalkError, match="unknown CPU model 'z80' for x86_64; known: qemu64, "):
        Bare("x86_64-4k", model="z80")


@pytest.mark.parametrize("model", ["nehalem", "haswell", "epyc", "cortex-a53", "max"])
def test_other_models(model: str) -> None:
    cpu = Bare("aarch64-4k" if model in ("cortex-a53", "max") else "x86_64-4k", model=model)
    assert cpu.run(b"\x0f\x05" if cpu.is_x86 else [SVC])[-1][0] == "syscall"
    if cpu.is_x86:
        cpu.run(b"\xb8\x01\0\0\0\x0f\xa2\x0f\x05")  # cpuid
        assert cpu.engine.regs[2] == cpu.engine.hwcap
        assert not cpu.engine.regs[1] & 1 << 27  # OSXSAVE: no program may use AVX
        if cpu.engine.hwcap2:
            cpu.load(b"\xf3\x48\x0f\xae\xc0\x0f\x05")
            cpu.engine.set_tls(0x1234)
            assert cpu.run() == [("syscall", 0x1234)]  # rdfsbase rax


def test_hwcap_says_what_executes() -> None:
    """LSE atomics and their bit: absent on the default model, present on max."""
    for model, expected in (("cortex-a72", "exception"), ("max", "syscall")):
        cpu = Bare("aarch64-4k", model=model)
        cpu.map(cpu.USER, "rw")
        kind = cpu.run([0xD2A20000, 0xF8210002, SVC], lambda *_: None)[-1][0]  # ldadd x1, x2, [x0]
        assert kind == expected
        assert bool(cpu.engine.hwcap & 1 << 8) == (kind == "syscall")


@pytest.mark.parametrize("name", ["x86_64-4k", "aarch64-4k"])
def test_calibration_fails_loudly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose contexts look different: one line, no guess."""
    from emu import engine as module

    real = module.uc_context_save
    target: list[Any] = []

    def shuffled(handle: Any, context: Any) -> int:
        status = real(handle, context)
        view = target[0]._bytes
        view[40:-8] = bytes(view[48:])
        view[300:308], view[308:316] = bytes(view[308:316]), bytes(view[300:308])
        return int(status)

    class Spy(Bare):
        pass

    monkeypatch.setattr(module, "uc_context_save", shuffled)
    locate = module.Engine._save

    def save(self: Any) -> None:
        target[:] = [self]
        locate(self)

    monkeypatch.setattr(module.Engine, "_save", save)
    with pytest.raises(EngineError, match=r"Unicorn: .* context") as error:
        Spy(name)
    assert "\n" not in str(error.value)


def test_engine_is_released() -> None:
    import gc
    import weakref

    cpu = Bare("x86_64-4k")
    gone = weakref.ref(cpu.engine)
    del cpu
    gc.collect()
    assert gone() is None


def test_several_engines_at_once() -> None:
    cpus = [Bare(name) for name in ARCHES]
    for cpu in cpus:
        cpu.load(b"\x31\xc0\xff\xc0\x0f\x05\xeb\xfa" if cpu.is_x86 else [0xD2800008, 0x91000508, SVC, 0x17FFFFFE])
    for turn in range(1, 4):
        for cpu in cpus:
            assert cpu.run()[-1] == ("syscall", turn)
