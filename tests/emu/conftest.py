"""The engine by itself, as the tests of emu/engine.py take it: on every CPU, or on one architecture's."""

from __future__ import annotations

import pytest
from bare import ARCHES, ARM, X86, Bare


@pytest.fixture(params=ARCHES)
def any_cpu(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.fixture(params=X86)
def x86(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.fixture(params=ARM)
def arm(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)
