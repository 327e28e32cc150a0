"""Entries of the two architectures: what each operation keeps and changes. Bits as the real kernels printed them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages_world import GEOMETRIES

VM_READ, VM_WRITE, VM_EXEC, VM_SHARED = 1, 2, 4, 8
X86 = [name for name in GEOMETRIES if name.startswith("x86")]
ARM = [name for name in GEOMETRIES if name.startswith("aarch")]


@pytest.mark.parametrize("geometry", X86)
@pytest.mark.parametrize(
    ("flags", "prot"),
    [
        (0, 0x120),
        (VM_READ, 0x8000000000000025),
        (VM_READ | VM_WRITE, 0x8000000000000025),
        (VM_READ | VM_EXEC, 0x25),
        (VM_SHARED | VM_WRITE, 0x8000000000000027),
        (VM_SHARED | VM_WRITE | VM_EXEC, 0x27),
        (VM_SHARED | VM_EXEC, 0x25),
    ],
)
def test_protection_x86(geometry: str, flags: int, prot: int) -> None:
    assert GEOMETRIES[geometry].vm_get_page_prot(flags) == prot


@pytest.mark.parametrize("geometry", ARM)
@pytest.mark.parametrize(
    ("flags", "prot"),
    [
        (0, 0x460000000000F82),
        (VM_READ, 0x60000000000FC3),
        (VM_READ | VM_WRITE, 0x60000000000FC3),
        (VM_READ | VM_EXEC, 0x20000000000FC3),
        (VM_SHARED | VM_WRITE, 0x68000000000FC3),
        (VM_SHARED | VM_WRITE | VM_EXEC, 0x28000000000FC3),
    ],
)
def test_protection_arm64(geometry: str, flags: int, prot: int) -> None:
    assert GEOMETRIES[geometry].vm_get_page_prot(flags) == prot


@pytest.mark.parametrize("geometry", GEOMETRIES)
@given(pfn=st.integers(0, (1 << 30) - 1), flags=st.integers(0, 15), newflags=st.integers(0, 15), dirty=st.booleans())
def test_entry_keeps_its_frame(geometry: str, pfn: int, flags: int, newflags: int, dirty: bool) -> None:
    arch = GEOMETRIES[geometry]
    pte = arch.mk_pte(pfn, arch.vm_get_page_prot(flags))
    assert arch.pte_present(pte)
    assert arch.pte_pfn(pte) == pfn
    assert arch.pte_protnone(pte) == (not flags & 7)
    if dirty:
        pte = arch.pte_mkdirty(pte)
    for change in (arch.pte_mkyoung, arch.pte_mkold, arch.pte_wrprotect, arch.pte_mkspecial, arch.pte_mksoft_dirty):
        assert arch.pte_pfn(change(pte)) == pfn
    modified = arch.pte_modify(pte, arch.vm_get_page_prot(newflags))
    assert arch.pte_pfn(modified) == pfn
    assert arch.pte_protnone(modified) == (not newflags & 7)
    assert arch.pte_dirty(modified) == dirty
    assert arch.pte_young(modified)
    # There and back again: nothing but the dirty state tells.
    back = arch.pte_modify(modified, arch.vm_get_page_prot(flags))
    assert back == pte


@pytest.mark.parametrize("geometry", GEOMETRIES)
@given(flags=st.integers(0, 15))
def test_writable_data_equals_the_functions(geometry: str, flags: int) -> None:
    arch = GEOMETRIES[geometry]
    prot = arch.vm_get_page_prot(flags | VM_WRITE)
    quick = (arch.mk_pte(77, prot) | arch.PTE_WRITABLE_SET) & arch.PTE_WRITABLE_MASK
    assert quick == arch.pte_mkwrite(arch.pte_mkdirty(arch.mk_pte(77, prot)))


@pytest.mark.parametrize("geometry", ARM)
def test_arm64_dirty_and_write_share_rdonly(geometry: str) -> None:
    arch = GEOMETRIES[geometry]
    rdonly = 1 << 7
    clean = arch.mk_pte(5, arch.vm_get_page_prot(VM_SHARED | VM_READ | VM_WRITE))
    assert arch.pte_write(clean) and clean & rdonly and not arch.pte_dirty(clean)
    dirty = arch.pte_mkdirty(clean)
    assert not dirty & rdonly
    protected = arch.pte_wrprotect(dirty)
    assert protected & rdonly and arch.pte_dirty(protected) and not arch.pte_write(protected)
    assert arch.pte_mkclean(dirty) & rdonly


def test_x86_protnone_inverts_the_frame() -> None:
    arch = GEOMETRIES["x86_64-4k"]
    pte = arch.mk_pte(0x1234, arch.vm_get_page_prot(0))
    assert pte & arch.PTE_PFN_MASK == ~(0x1234 << 12) & arch.PTE_PFN_MASK
    assert arch.pte_pfn(pte) == 0x1234


def test_geometry() -> None:
    shape = {
        name: (arch.page_size, arch.level_names, arch.pmd_size, arch.task_size) for name, arch in GEOMETRIES.items()
    }
    assert shape == {
        "x86_64-4k": (4096, ("pgd", "pud", "pmd", "pte"), 2 << 20, (1 << 47) - 4096),
        "x86_64-4k-la57": (4096, ("pgd", "p4d", "pud", "pmd", "pte"), 2 << 20, (1 << 56) - 4096),
        "aarch64-4k": (4096, ("pgd", "pud", "pmd", "pte"), 2 << 20, 1 << 48),
        "aarch64-16k": (16384, ("pgd", "pud", "pmd", "pte"), 32 << 20, 1 << 48),
        "aarch64-64k": (65536, ("pgd", "pmd", "pte"), 512 << 20, 1 << 48),
    }
