"""The notebooks run from top to bottom and print what is stored in them: a run is the same every time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from geometry import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def texts(cell: Any) -> list[str]:
    """What a cell printed and showed, as text; which frame it was given is a matter of what else the machine holds."""
    outputs = [output.get("text") or output["data"]["text/plain"] for output in cell.get("outputs", [])]
    return [re.sub(r"\b0x[0-9a-f]+|@[0-9a-f]+|\b[0-9a-f]{16}\b", "#", text) for text in outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook(path: Any) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    folder = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(fresh, timeout=120, kernel_name="python3", resources=folder).execute()
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        assert texts(new) == texts(old), old.source


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3
