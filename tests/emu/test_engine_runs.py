"""The engine alone: task state, TLB and code cache, counted runs, stops, calibration."""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import pytest
from bare import ARCHES, NOP, SVC, UDF, Bare, Mm, movabs

from emu.counter import BLOCK_INSTRUCTIONS
from emu.errors import EngineError, PagewalkError

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
