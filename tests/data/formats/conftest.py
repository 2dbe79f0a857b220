"""What the tests of the formats share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpubp.data.formats import Part, Request, recognise

ReadParts = Callable[..., list[Part]]


@pytest.fixture
def read_parts(tmp_path: Path) -> ReadParts:
    """`read_parts(path, x=…)`: what the format that recognises the file makes of it; nothing is left beside it."""

    def read(path: Path, **options: Any) -> list[Part]:
        before = sorted(tmp_path.iterdir())
        found = recognise(path)
        assert found is not None
        asked = Request(tmp_path, **options)
        asked.refuse_but(found.takes, found.title)
        try:
            return found.read(path, asked)
        finally:
            assert sorted(tmp_path.iterdir()) == before

    return read
