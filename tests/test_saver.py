"""The rooms of tests/torture notice a saver that is broken in one line; what they know to be lost is tested here."""

from __future__ import annotations

import errno
import random
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "torture"))

import damage
import faults
import powercut
import saver
from disk import Call, Disk
from tinyrun import data_in, job, newest

from gpubp.errors import CheckpointError, UsageError
from gpubp.loading import load
from gpubp.run import resume, start
from gpubp.run_folder import RunFolder

SMALL: dict[str, Any] = {"keep": 1, "iterations": 2}


def lost_in_power_cuts(place: Path, broken: saver.Broken | None, case: str = "new", resumes: int = 12) -> int:
    """Cuts after which something is lost; with the disk below the broken saver."""
    data = data_in(place / "data")
    recorded = powercut.trained(place, data, case, 7000, broken=broken or nullcontext, **SMALL)
    return powercut.losses(recorded, place, data, random.Random(2), resumes=resumes, enough=3)["lost"]


def test_a_sound_saver_loses_nothing(tmp_path):
    assert lost_in_power_cuts(tmp_path, None) == 0


@pytest.mark.parametrize(
    "broken",
    [
        saver.without_fsync_of_files,
        saver.without_fsync_of_the_folder,
        saver.renamed_before_it_is_synced,
        saver.old_ones_removed_first,
        saver.a_number_not_saved,
    ],
    ids=lambda broken: broken.__name__,
)
def test_power_cuts_find(tmp_path, broken):
    assert lost_in_power_cuts(tmp_path, broken) > 0


def test_power_cuts_find_a_reader_that_takes_the_oldest(tmp_path):
    data = data_in(tmp_path / "data")
    recorded = powercut.trained(tmp_path, data, "new", 7000, keep=2, iterations=2)
    with saver.the_oldest_preferred():
        assert powercut.losses(recorded, tmp_path, data, random.Random(2), resumes=0, enough=1)["lost"]


@pytest.mark.parametrize(
    "broken",
    [saver.temporary_files_stay, saver.short_writes_not_continued, saver.no_checkpoint_at_the_end],
    ids=lambda broken: broken.__name__,
)  # fmt: skip
def test_faults_find(tmp_path, broken):
    plan = faults.Plan("resume", tmp_path, data_in(tmp_path / "data"))

    def full(number: int, call: Call) -> int | None:
        return errno.ENOSPC if call.what in ("write", "pwrite") and ".tmp." in call.path else None

    def lost() -> bool:
        failed, on = plan.again(full)
        if faults.harm(plan, failed, on, {errno.ENOSPC}, ended=True):
            return True
        short, there = plan.again(None, 2000)
        return bool(faults.harm(plan, short, there, set(), ended=False))

    assert not lost()
    plan.broken = broken
    assert lost()


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (lambda: saver.digests_not_checked("header"), range(10, 84)),
        (lambda: saver.digests_not_checked("table"), range(512, 4096, 101)),
        (lambda: saver.digests_not_checked("data"), range(5000, 30_000, 301)),
        (saver.lengths_not_checked, None),
    ],
    ids=["digest of the header", "digest of the table", "digests of the data", "length"],
)
def test_damage_finds(tmp_path, broken, where):
    data = data_in(tmp_path / "data")
    start(job(data, **SMALL), tmp_path / "run")
    path = next((tmp_path / "run").glob("*.h5"))
    sound = path.read_bytes()

    def look() -> Any:
        if where is None:
            return damage.lengths(sound, path, step=997)
        return damage.flips(sound, path, where.step, where.start, min(where.stop, len(sound)))

    look()
    path.write_bytes(sound)
    with broken(), pytest.raises(AssertionError):
        look()


@pytest.mark.parametrize("broken", [None, saver.without_a_lock, saver.swept_before_the_lock])
def test_a_second_trainer_is_let_in_or_does_harm_only_where_the_lock_is_broken(tmp_path, broken):
    run = tmp_path / "run"

    def harm() -> str:
        with RunFolder(run):
            (run / ".checkpoint-00000001.h5.tmp.7").write_bytes(b"of the first, at work")
            try:
                with RunFolder(run):
                    return "let in"
            except CheckpointError:
                return "" if (run / ".checkpoint-00000001.h5.tmp.7").exists() else "swept"

    if broken is None:
        assert harm() == ""
    else:
        with broken():
            assert harm() == {saver.without_a_lock: "let in", saver.swept_before_the_lock: "swept"}[broken]


# What was lost once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"g", b"gpubp", bytes(26), bytes(8) + b"ess 7"], ids=["g", "gpubp", "zeros", "torn"])
def test_a_torn_lock_is_ours(tmp_path, torn):
    run = tmp_path / "run"
    run.mkdir()
    (run / "lock").write_bytes(torn)
    with RunFolder(run):
        pass


def test_of_an_overwritten_run_the_newest_is_found_whatever_renames_survive(tmp_path):
    data = data_in(tmp_path / "data")
    recorded = powercut.trained(tmp_path, data, "overwriting", None, keep=3, iterations=2)
    assert powercut.losses(recorded, tmp_path, data, random.Random(1), resumes=0)["lost"] == 0


def test_a_new_folders_name_is_safe_before_its_first_checkpoint_is_reported(tmp_path):
    data = data_in(tmp_path / "data")
    with Disk(tmp_path) as disk:
        start(job(data, **SMALL), tmp_path / "deep" / "run")
    assert not powercut.unsafe_folders(disk.calls)


# Right digests over words that no gpubp writes ------------------------------------------------------------------------


def resealed(place: Path, changes: dict[str, Any]) -> Path:
    """A run whose newest checkpoint has these parts in place of its own."""
    start(job(data_in(place / "data"), **SMALL), place / "run")
    whole = newest(place / "run")
    with RunFolder(place / "run") as folder:
        folder.save(replace(whole, **changes), keep=1)
    return place / "run"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scaling": {"kind": "sandard", "mean": None, "scale": None}}, "scaling 'sandard'"),
        ({"scaling": {"kind": "none", "mean": None, "scale": None, "sizes": [2]}}, "sizes"),
        ({"scaling": {"kind": "standard", "mean": np.zeros((1, 2, 3)), "scale": None}}, "leaf 'scaling/mean'"),
        ({"scaling": {"kind": "standard", "mean": None, "scale": "{"}}, "leaf 'scaling/scale'"),
        ({"job": {"patience": []}}, "patience"),
        ({"job": {"x": []}}, "x = "),
        ({"history": np.full((1, 1), np.inf), "history_columns": ("iteration",)}, "infinity"),
    ],
)
def test_a_sealed_checkpoint_whose_parts_do_not_go_together_is_one_line(tmp_path, changes, says):
    run = resealed(tmp_path, changes)
    for look in (load, resume):
        with pytest.raises((CheckpointError, UsageError), match=says) as caught:
            look(run)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": {"Theta": np.zeros(3)}, "ending": {"kind": "converged", "reason": ""}}, "gradient"),
        ({"ending": {"reason": ""}}, "kind"),
        ({"optimizer": {"name": "lbfgs"}}, "tolerance"),
    ],
)
def test_one_that_lacks_what_a_resume_looks_at_first_is_one_line(tmp_path, changes, says):
    with pytest.raises(CheckpointError, match=says) as caught:
        resume(resealed(tmp_path, changes), iterations=9)
    assert "nothing that gpubp wrote" in str(caught.value) and "\n" not in str(caught.value)
