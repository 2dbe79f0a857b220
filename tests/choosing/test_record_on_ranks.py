"""The folder of a sweep on several ranks: rank 0 has it, and what goes wrong there is met by all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thread_ranks import on_ranks

from gpubp.choosing import record
from gpubp.choosing.record import Record
from gpubp.errors import CheckpointError

PLAN = {"kind": "sweep", "job": {}}


@dataclass(frozen=True)
class Point:
    lambda_: float = 1.0


@pytest.mark.parametrize("what", ["point", "result"])
def test_what_cannot_be_kept_is_told_by_all(monkeypatch, tmp_path, what):
    write = record.write_whole

    def full(path: Path, content: Any) -> None:
        if path.name.startswith(what):
            raise CheckpointError("the disk is full")
        write(path, content)

    monkeypatch.setattr(record, "write_whole", full)

    def work(ranks: Any) -> str:
        with Record(tmp_path / "s", PLAN, ranks) as kept:
            kept.begin("a fingerprint", "the data")
            with pytest.raises(CheckpointError) as met:
                kept.save("a", Point(), np.zeros(3)) if what == "point" else kept.finish({"a": 1})
        assert met.value.agreed
        return str(met.value)

    assert set(on_ranks(3, work)) == {"rank 0 on host0: the disk is full"}
