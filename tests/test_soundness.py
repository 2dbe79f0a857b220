"""`gpubp verify` of a run or a checkpoint says which file is damaged and where; it never takes one for a data file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import pytest
from in_process import gpubp
from test_run_folder import content, holding

from gpubp import soundness
from gpubp.soundness import verify_checkpoints


def damage(path: Path, leaf: str = "Theta/Theta1") -> Path:
    with h5py.File(path) as file:
        at = file[leaf].id.get_offset()  # pyright: ignore[reportAttributeAccessIssue]
    with open(path, "r+b") as file:
        file.seek(at + 1)
        byte = file.read(1)
        file.seek(at + 1)
        file.write(bytes([byte[0] ^ 4]))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return holding(tmp_path / "run", 1, 2, 3)


def test_of_a_run_every_checkpoint_is_looked_at_also_those_that_nobody_would_read(run, capsys):
    gpubp(capsys, "verify", run)
    damage(run / "checkpoint-00000001.h5")
    before = content(run)
    ended = gpubp(capsys, "verify", run, code=3)
    assert "checkpoint-00000001.h5 is damaged: Theta/Theta1 does not" in ended.line
    assert "the newest sound one" in ended.line and "1 more" not in ended.line
    result = verify_checkpoints(run)
    assert [one["name"][-4] for one in result["checkpoints"]] == ["3", "2", "1"]
    assert [one["trouble"] is None for one in result["checkpoints"]] == [True, True, False] and not result["sound"]
    for at in (2, 3):
        damage(run / f"checkpoint-0000000{at}.h5")
    ended = gpubp(capsys, "verify", run, code=3)
    assert "and 2 more" in ended.line and "the newest sound one" not in ended.line
    assert content(run).keys() == before.keys()


@pytest.mark.parametrize("at", [0, 5, 11, 60, 600, -1])
def test_a_damaged_checkpoint_is_never_a_readable_data_file(run, capsys, at):
    path = run / "checkpoint-00000003.h5"
    image = bytearray(path.read_bytes())
    image[at] ^= 1
    path.write_bytes(image)
    assert str(path) in gpubp(capsys, "verify", path, code=3).line


def test_as_json(run, capsys):
    assert gpubp(capsys, "verify", run).code == 0
    from gpubp.cli._main import _run

    capsys.readouterr()
    assert _run(["verify", "--json", str(damage(run / "checkpoint-00000002.h5"))])[0] == 3
    found = json.loads(capsys.readouterr().out)
    assert not found["sound"] and "Theta/Theta1" in found["checkpoints"][0]["trouble"]


def test_links_and_what_is_missing_are_one_line(run, tmp_path, capsys):
    link = tmp_path / "newest.h5"
    link.symlink_to(run / "checkpoint-00000003.h5")
    assert "is a symbolic link" in gpubp(capsys, "verify", link, code=3).line
    assert "does not exist" in gpubp(capsys, "verify", run / "checkpoint-00000009.h5", code=3).line
    (tmp_path / "empty").mkdir()
    assert "without a checkpoint" in gpubp(capsys, "verify", tmp_path / "empty", code=3).line


def test_one_that_a_trainer_removes_meanwhile_is_no_trouble(run, monkeypatch):
    real = soundness.verify

    def verify(path: Path) -> None:
        if path.name.endswith("1.h5"):
            os.unlink(path)
        real(path)

    monkeypatch.setattr(soundness, "verify", verify)
    result = verify_checkpoints(run)
    assert result["sound"] and [one["name"][-4] for one in result["checkpoints"]] == ["3", "2"]
