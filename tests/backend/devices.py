"""The GPU, for tests that need one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from gpubp.backend import gpu_status


def gpu() -> Any:
    """The first GPU's backend; skips the test, with the reason, where none works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what CuPy says of other libraries while it is imported is no failure of ours
        works, why = gpu_status()
    if not works:
        pytest.skip(why)
    from gpubp.backend.cupy import CupyBackend

    return CupyBackend()
