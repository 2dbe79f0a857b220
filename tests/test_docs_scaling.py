"""docs/scaling.md says what benchmarks/scaling_tables.py computes, and the model what two ranks were seen to do."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from math import isclose, sqrt

import numpy as np
import pytest
from running import ROOT

PAGE = ROOT / "docs" / "scaling.md"
RECORD = ROOT / "benchmarks" / "results" / "ranks.json"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling_tables

    return scaling_tables


@pytest.fixture
def model(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling_model

    return scaling_model


def test_the_tables_are_the_models(tables):
    text = PAGE.read_text()
    names = re.findall(r"<!-- ([\w-]+) -->", text)
    assert set(names) == set(tables.tables())
    assert tables.with_tables(text) == text, "python3 benchmarks/scaling_tables.py --update"


def test_the_flop_of_a_row_are_those_of_its_products(model):
    # EVIDENCE, section 2: 31,700 GFLOP for 1,000,000 rows of C, 653 for 20,000,000 of D (biases are in these)
    assert isclose(1e6 * model.C.flop, 31_700e9, rel_tol=0.01)
    assert isclose(20e6 * model.D.flop, 653e9, rel_tol=0.03)


def test_parameters_are_the_networks(model):
    import gpubp

    for load in (model.C, model.D):
        network = gpubp.Network(load.sizes, "tanh", "softmax" if load.sizes[-1] > 1 else "logistic")
        assert load.P == sum(Theta.size for Theta in network.unpack(network.pack(network_matrices(load.sizes))))


def network_matrices(sizes):
    return [np.zeros((b, a + 1)) for a, b in pairwise(sizes)]


def test_topmost_nodes_are_one_each_on_a_power_of_two(model):
    assert model.topmost(64, 8) == (1, 8)
    assert model.topmost(8, 3) == (2, 5)  # [0, 2) is one node, [2, 5) a node and a leaf, [5, 8) a leaf and a node
    most, every = model.topmost(1 << 20, 10_000)
    assert most > 1 and every > 10_000


def test_halves_carry_an_eighth_between_nodes(model):
    """Against the sum written out: three exchanges in a node, then log2 of the nodes, and all back."""
    n, near, far = model.C.node, model.K["nvlink"], model.K["ib"]
    bytes_near, bytes_far = n / 2 + n / 4 + n / 8, n / 16 + n / 32
    hops = 3 * model.K["near"] + 2 * model.K["far"]
    expected = model.K["call"] + 2 * (bytes_near / near + bytes_far / far + hops)
    assert isclose(model.by_halves(model.C, 32), expected, rel_tol=1e-12)


def test_the_interval_is_youngs(model):
    delta, M = model.checkpoint(model.C) / model.K["write"], 3600 * model.K["failures"] / 10_000
    assert isclose(model.interval(model.C, 10_000), sqrt(2 * delta * M))
    # and near the best there is: nearby intervals lose more
    tau = model.interval(model.C, 10_000)
    loss = [delta / t + t / (2 * M) for t in (0.5 * tau, tau, 2 * tau)]
    assert loss[1] < min(loss[0], loss[2])


def test_the_model_agrees_with_two_ranks(model):
    """Within a factor of 2.5 for an exchange and a tenth for an evaluation, by the record of a quiet machine."""
    compared = model.two_ranks(json.loads(RECORD.read_text()))
    assert len(compared) > 4
    for one in compared:
        allowed = 1.1 if one["what"].startswith("evaluation") else 2.5
        assert 1 / allowed < one["model"] / one["measured"] < allowed, one


def test_the_model_agrees_with_what_one_of_many_ranks_does(model):
    """The constants of `as_built` that were measured, against the lines they come from."""
    (many,) = json.loads(RECORD.read_text())["stages"]["many"]
    for one in many["exchanges"]:
        if one["ranks"] > 2 and one["bytes"] < 1e6:
            _, every = model.topmost(one["leaves"], one["ranks"])
            own = one["ranks"] * model.K["each"] + every * model.K["addition"]
            assert 0.8 < own / one["median_s"] < 1.25, one


def test_the_record_has_no_path_and_the_same_bits():
    text = RECORD.read_text()
    assert not re.search(r"/(?:home|tmp|work|root|usr)/", text)
    for race in json.loads(text)["stages"]["strong"]:
        assert race["same_bits"]
