"""Sound files with bytes changed where it hurts: read or refused in one line, by a process that lives on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mutants import mutant, outcome, read_as_training_does
from seeds import NAMES, checksum, seed

HERE = Path(__file__).parent


def test_seeds_are_read_and_their_checksums_known(tmp_path):
    for name in NAMES:
        one = seed(name)
        (tmp_path / f"{name}.h5").write_bytes(one.raw)
        came = outcome(tmp_path / f"{name}.h5", read_as_training_does)
        if name.partition("-")[0] not in ("virtual", "records", "much"):  # these are refused, for what they are
            assert came == "read", name
        assert all(checksum(one.raw[start:end]) == one.raw[end : end + 4] for start, end in one.sums)
        assert ("latest" in name) == bool(one.sums)
        assert not set(one.structure) & set(one.values) and max(one.structure) < len(one.raw)


def test_mutants_are_what_they_say():
    for number in range(200):
        name, raw = mutant(number)
        assert (name, raw) == mutant(number)
        one = seed(name)
        if len(raw) == len(one.raw):
            places = set(np.flatnonzero(np.frombuffer(raw, "u1") != np.frombuffer(one.raw, "u1")).tolist())
            assert len(places) < 80
    for number in range(100):
        name, raw = mutant(number, values=True)
        one = seed(name)
        if len(raw) == len(one.raw) and len(one.values):
            changed = np.flatnonzero(np.frombuffer(raw, "u1") != np.frombuffer(one.raw, "u1"))
            assert np.isin(changed[:1], one.values).all()


@pytest.mark.parametrize("values", [False, True])
def test_none_brings_the_process_down(values, tmp_path):
    """In a process of its own, as it might die; `python tests/data/hdf5/mutants.py --count 20000` runs more."""
    count = 140 if values else 510
    command = [sys.executable, str(HERE / "mutants.py"), "--count", str(count), "--report", str(tmp_path / "report")]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run([*command, *["--values"] * values], capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), f"it ended by {done.returncode}: {done.stderr[-2000:]}"
    found = json.loads((tmp_path / "report").read_text())
    assert not found["wrong"], found["wrong"]
    assert sum(found["outcomes"].values()) == count and found["outcomes"]["read"] > count / 20
    assert found["outcomes"]["refused"] > 0 and found["peak memory, MB"] < 500


def test_what_is_wrong_is_noticed(tmp_path):
    def traceback(_: Path) -> int:
        raise ZeroDivisionError

    def two_lines(_: Path) -> int:
        from gpubp.errors import DataError

        error = DataError("one")
        error.args = ("one\ntwo",)
        raise error

    assert outcome(tmp_path, traceback).startswith("traceback: ")
    assert outcome(tmp_path, two_lines).startswith("traceback: ")
