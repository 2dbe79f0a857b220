"""What TensorBoard is given: read back by the protocol buffers of tensorboardX."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import ran

from gpubp.errors import CheckpointError, DataError, UsageError
from gpubp.run_folder import find_checkpoint
from gpubp.tensorboard import NAME, write_events

pytest.importorskip("tensorboardX")


def events(path: Path) -> list[Any]:
    """Every record of a file, its checksums checked."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,), (crc,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        body, end = data[at + 12 : at + 12 + length], at + 12 + length
        assert crc == masked_crc32c(data[at : at + 8])
        assert struct.unpack_from("<I", data, end) == (masked_crc32c(body),)
        found.append(Event.FromString(body))
        at = end + 4
    return found


def scalars(found: list[Any]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in found:
        for value in event.summary.value:
            if not value.HasField("histo"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from running import write

    folder = tmp_path_factory.mktemp("tensorboard")
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 300)
    path = write(folder / "d.h5", X=rng.normal(size=(300, 12)) + rng.normal(size=(3, 12))[y], y=y)
    done = ran("train", path, "--out", folder / "run", "--hidden", 4, "--iterations", 7, "--validation", 0.2,
               "--checkpoint-every", "2it", "--keep", 2)  # fmt: skip
    assert done.returncode == 0
    return folder / "run"


def test_curves_are_those_of_the_history(run, tmp_path):
    path = write_events(run, tmp_path / "board" / "run")
    found = events(path)
    assert found[0].file_version == "brain.Event:2" and path.name == NAME
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    curves = scalars(found)
    for name, tag in (("J", "cost/training"), ("validation", "cost/validation"), ("gradient", "gradient/max"),
                      ("step", "step/norm")):  # fmt: skip
        assert curves[tag] == [(row["iteration"], np.float32(row[name])) for row in rows], tag
    speeds = dict(curves["speed/passes per second"])
    a, b = rows[3], rows[4]
    assert speeds[5] == pytest.approx((b["passes"] - a["passes"]) / (b["seconds"] - a["seconds"]), rel=1e-6)
    times = {event.step: event.wall_time for event in found[1:] if event.step and event.summary.value[0].tag in curves}
    assert times[7] == pytest.approx((run / "history.jsonl").stat().st_mtime)
    assert times[7] - times[2] == pytest.approx(rows[6]["seconds"] - rows[1]["seconds"], abs=1e-5)


def test_histograms_are_those_of_the_kept_checkpoints(run, tmp_path):
    found = [event for event in events(write_events(run, tmp_path)) if event.step]
    histograms = {(event.step, value.tag): value.histo for event in found for value in event.summary.value
                  if value.HasField("histo")}  # fmt: skip
    kept = sorted(int(path.stem.rpartition("-")[2]) for path in run.glob("checkpoint-*.h5"))
    assert sorted({step for step, _ in histograms}) == kept and len(kept) >= 2
    for l, Theta in enumerate(find_checkpoint(run).checkpoint.Theta, start=1):
        found = histograms[7, f"Theta/Theta{l}"]
        assert found.num == Theta.size == sum(found.bucket)
        assert (found.min, found.max) == (Theta.min(), Theta.max()) and found.sum == pytest.approx(Theta.sum())


def test_a_second_call_replaces_the_first(run, tmp_path):
    first = write_events(run, tmp_path).read_bytes()
    (tmp_path / "notes.txt").write_text("of somebody else")
    assert write_events(run, tmp_path).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "notes.txt"]


def test_numbers_that_are_not_known_are_left_out(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    lines = (copy / "history.jsonl").read_text().splitlines()
    row = json.loads(lines[-1])
    later = {**row, "iteration": 8, "J": None, "validation": None, "step": None, "seconds": row["seconds"]}
    (copy / "history.jsonl").write_text("\n".join([*lines, json.dumps(later)]) + "\n")
    curves = scalars(events(write_events(copy, tmp_path / "board")))
    assert {tag: points[-1][0] for tag, points in curves.items()} == {
        "cost/training": 7, "cost/validation": 7, "gradient/max": 8, "step/norm": 7, "speed/passes per second": 7,
    }  # fmt: skip


def test_what_is_missing_is_said_in_a_line(run, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="none"):
        write_events(tmp_path / "none", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        write_events(run, tmp_path / "file" / "in")
    monkeypatch.setitem(sys.modules, "tensorboardX.record_writer", None)
    with pytest.raises(UsageError, match=r"pip install 'gpubp\[tensorboard\]'"):
        write_events(run, tmp_path)
    assert not (tmp_path / NAME).exists()
