"""Checkpoints of earlier versions are read as what they are, predict what they predicted, and go on to where they went.

They lie in tests/checkpoints, made by the versions themselves; make.py there says how."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.checkpoint import read, verify
from gpubp.errors import MismatchError
from gpubp.loading import load
from gpubp.run import resume
from gpubp.run_folder import find_checkpoint

HERE = Path(__file__).parent / "checkpoints"
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
# In their days swapped rows passed for the same data. What they noted of the data can be compared no more: a run of
# theirs is refused as one of other data, its model is not.
OTHER_FINGERPRINT = {name for name, one in EXPECTED.items() if one["commit"] == "9b2c386"}

every = pytest.mark.parametrize("name", EXPECTED)


def rows_of(name: str) -> np.ndarray:
    with h5py.File(HERE / EXPECTED[name]["data"]) as file:
        return np.asarray(file["X"])


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Makes a run folder with the checkpoint of that name in it."""

    def made(name: str) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        shutil.copy(HERE / f"{name}.h5", folder / f"checkpoint-{EXPECTED[name]['iteration']:08d}.h5")
        return folder

    return made


def test_every_file_here_is_one_that_is_tested_and_as_it_was_made():
    names = {path.stem for path in HERE.glob("*.h5")}
    assert names == {*EXPECTED, *(Path(one["data"]).stem for one in EXPECTED.values())}
    for name, one in EXPECTED.items():
        assert hashlib.sha256((HERE / f"{name}.h5").read_bytes()).hexdigest() == one["digest of the file"]


@every
def test_it_reads_as_what_it_is(name):
    path, one = HERE / f"{name}.h5", EXPECTED[name]
    verify(path)
    checkpoint = read(path)
    assert checkpoint.iteration == one["iteration"]
    assert [list(Theta.shape) for Theta in checkpoint.Theta] == one["shapes"]
    assert hashlib.sha256(b"".join(T.tobytes() for T in checkpoint.Theta)).hexdigest() == one["digest of Theta"]
    last = dict(zip(checkpoint.history_columns, checkpoint.history[-1].tolist(), strict=True))
    assert last["J"].hex() == one["J"] and last["iteration"] == one["iteration"]


@every
def test_it_predicts_what_it_predicted(name, run):
    one = EXPECTED[name]
    model = load(run(name))
    X = rows_of(name)[:2]
    answer = model.predict(X, precision="fp64")
    if one["probability"] is None:
        np.testing.assert_allclose(answer, one["prediction"], rtol=1e-9)
    else:
        assert answer.tolist() == one["prediction"]
        np.testing.assert_allclose(
            model.predict_proba(X, precision="fp64"), one["probability"], rtol=1e-6
        )  # kept in float32


@every
def test_it_goes_on_to_the_cost_it_went_to(name, run):
    one = EXPECTED[name]
    if name in OTHER_FINGERPRINT:
        with pytest.raises(MismatchError, match=r"not the data that .* was trained on"):
            resume(run(name), iterations=one["end"]["iteration"], data=str(HERE / one["data"]), inexact=True)
        return
    folder = run(name)
    data = HERE / one["data"]
    model = resume(folder, iterations=one["end"]["iteration"], data=str(data), inexact=True)
    assert len(model.history) == one["end"]["iterations"] == one["end"]["iteration"]
    steps = [row["step"] for row in model.history]  # nobody had measured the first ones
    assert steps[: one["iteration"]] == [None] * one["iteration"] and all(s > 0 for s in steps[one["iteration"] :])
    assert model.reached["J"] == pytest.approx(one["end"]["J"], rel=1e-6)
    found = find_checkpoint(folder)
    assert found.checkpoint.iteration == one["end"]["iteration"] and not found.rejected
