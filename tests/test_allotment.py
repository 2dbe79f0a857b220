"""What an optimizer remembers has a share of the memory budget, and rows get what is left."""

from __future__ import annotations

import logging
from typing import Any, cast

import numpy as np
import pytest
from running import write

from gpubp import allotment
from gpubp.allotment import allot
from gpubp.backend import Backend, choose
from gpubp.job import Job
from gpubp.network import Network
from gpubp.optimizers import make, names
from gpubp.optimizers.footprint import footprint
from gpubp.prepare import array_dataset, prepare
from gpubp.run import resume, start
from gpubp.run_folder import find_checkpoint

CPU, _ = choose("cpu", kernel="numpy")
QUICK: dict[str, Any] = {"hidden": (10,), "backend": "cpu", "kernel": "numpy", "iterations": 8, "lambda_": 0.1}
QUICK["optimizer"] = "lbfgs"
P = Network((20, 10, 1), "sigmoid", "logistic").P


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, 20)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=500) > 0).astype(int)


def test_the_history_is_shortened_to_a_quarter_of_the_budget_and_that_is_said(caplog):
    budget = 4 * 16_000_000 * 12
    with caplog.at_level(logging.WARNING, "gpubp"):
        optimizer, taken, said = allot(make("lbfgs"), 1_000_000, budget, CPU, fresh=True)
    assert optimizer == make("lbfgs", history=12)
    wanted = "history shortened from 30 to 12 pairs of 16 MB each, to fit 192 MB, a quarter of the memory budget"
    assert said == {"memory": wanted} and caplog.messages == [wanted]
    assert taken == footprint(optimizer, 1_000_000) + 8_000_000 >= 12 * 16_000_000
    assert allot(make("lbfgs"), 1_000_000, 10 * budget, CPU, fresh=True)[0] == make("lbfgs")


def test_what_is_no_burden_is_not_shortened_and_a_run_that_goes_on_keeps_what_it_has(caplog):
    assert allot(make("lbfgs"), 30_000, 0, CPU, fresh=True)[0] == make("lbfgs")
    optimizer, _, said = allot(make("lbfgs"), 100_000, 0, CPU, fresh=True)
    assert optimizer == make("lbfgs", history=10) and said["memory"].endswith("to fit 16 MB")
    caplog.clear()
    assert allot(make("lbfgs"), 100_000, 0, CPU, fresh=False)[0] == make("lbfgs") and not caplog.messages


@pytest.mark.parametrize(("free", "history"), [(None, 30), (16_000_000 * 4 * 7, 7)])
def test_on_a_device_its_own_free_memory_counts(free, history):
    class Device:
        has_engine = True

        def free_memory(self) -> int | None:
            return free

    optimizer, taken, said = allot(make("lbfgs"), 1_000_000, 0, cast(Backend, Device()), fresh=True)
    assert optimizer == make("lbfgs", history=history) and taken == 0
    assert bool(said) == (free is not None) and ("the GPU's free memory" in said.get("memory", "")) == bool(said)


def test_nothing_is_allocated_to_know_what_will_be():
    assert footprint(make("lbfgs", history=30), 10**12) >= 10**12 * 8 * 62
    for name in names():
        optimizer = make(name)
        made = [v for v in vars(optimizer.blank(50)).values() if isinstance(v, np.ndarray) and v.shape[-1:] == (50,)]
        assert footprint(optimizer, 50) >= sum(v.nbytes for v in made), name


def test_a_run_stores_the_shortened_history_and_a_resume_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(allotment, "LEAST", 16 * P * 3)
    rows = array_dataset(*data())
    model = start(Job(**QUICK, memory=1000), tmp_path / "run", dataset=rows)
    assert find_checkpoint(tmp_path / "run")[1].optimizer["history"] == 3
    short = start(Job(**QUICK, options={"history": 3}), None, dataset=rows)
    assert model.Theta.tobytes() == short.Theta.tobytes()
    assert model.Theta.tobytes() != start(Job(**QUICK), None, dataset=rows).Theta.tobytes()
    for run, memory in (("run", 10**9), ("again", 10)):
        start(Job(**QUICK, memory=1000), tmp_path / run, dataset=rows, overwrite=True)
        resume(tmp_path / run, dataset=rows, iterations=12, memory=memory)
        assert find_checkpoint(tmp_path / run)[1].optimizer["history"] == 3
    whole = start(Job(**{**QUICK, "iterations": 12}, options={"history": 3}), None, dataset=rows)
    assert np.asarray(find_checkpoint(tmp_path / "run")[1].state["Theta"]).tobytes() == whole.Theta.tobytes()


def test_rows_get_what_is_left(tmp_path, monkeypatch):
    X, y = data()
    path = write(tmp_path / "d.h5", X=X, y=y)

    def kept(memory: int) -> tuple[int, str | None]:
        ready = prepare(Job(**QUICK, data=str(path), memory=memory))
        ready.close()
        assert ready.network.P == P
        return len(ready.rows.kept), ready.choices.get("memory")

    beside = 100_000  # labels, and more than rows need
    optimizer = footprint(make("lbfgs"), P)
    assert kept(X.nbytes + beside + optimizer) == (500, None)
    assert kept(X.nbytes // 2 + optimizer)[0] < 250 < kept(X.nbytes // 2 + beside + optimizer)[0]
    assert kept(X.nbytes)[0] < 500 and kept(optimizer // 2)[0] == 0
    monkeypatch.setattr(allotment, "LEAST", 1)
    most = 40_000 // 4 // (16 * P)
    assert kept(40_000)[1] == (
        f"history shortened from 30 to {most} pairs of 0 MB each, to fit 0 MB, a quarter of the memory budget"
    )
