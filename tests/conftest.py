"""Options of the test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--corpus", action="store_true", help="conformance: every recording, not only those known to agree"
    )
