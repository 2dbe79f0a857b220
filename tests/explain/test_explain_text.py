"""The tables that a person reads in a terminal: they fit, and their numbers are the record's."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from random_networks import random_example

from gpubp.explain import text
from gpubp.explain.fold import fold
from gpubp.explain.seed import seed_example
from gpubp.explain.slopes import check


@pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (1, 1), (400, 25, 10), (784, 120, 90, 10), (3, 4, 4, 4, 4, 4, 2)])
def test_the_tables_of_networks_of_every_shape_fit_a_terminal(sizes):
    J = "softmax" if sizes[-1] > 1 else "squares"
    e = random_example(np.random.default_rng(4), "relu", J, sizes=sizes)
    kept = fold(e)
    printed = "\n\n".join([text.header(e), text.tables(e, kept, literal=True), text.slopes(e, kept, check(e))])
    assert max(map(len, printed.splitlines())) <= 110
    assert len(printed.splitlines()) < 300 and not any(line != line.rstrip() for line in printed.splitlines())
    for l in range(1, e.L + 1):
        assert printed.count(f"layer {l}{', the input' if l == 1 else ', the output' if l == e.L else ''}\n") >= 1
        if kept.hidden(l):
            assert f"… {kept.hidden(l):,} more {'inputs' if l == 1 else 'units'}" in printed
    assert re.search(r"^PASS: [\d,]+ δ's, each is the slope of C", printed, re.MULTILINE)


def test_the_rows_of_a_table_are_the_records_numbers():
    e = random_example(np.random.default_rng(9), "tanh", "logistic", sizes=(40, 30, 20, 1))
    kept = fold(e, 5)
    printed = text.tables(e, kept).partition("Backward")[2]
    block = printed.partition("layer 2\n")[2].partition("\n\n")[0].splitlines()
    assert block[0].split() == ["unit", "from", "shown", "from", "others", "s", "g′(z)", "δ"]
    for line, j in zip(block[1:], kept.shown[2], strict=False):
        first, shown, others, s, slope, delta = map(float, line.split())
        assert first == j and shown + others == pytest.approx(s, rel=1e-4, abs=1e-5)
        assert (s, slope, delta) == pytest.approx(
            (e.s[2][j - 1], e.slope[2][j - 1], e.delta[2][j - 1]), rel=1e-5, abs=1e-300
        )
    rest = np.abs(np.delete(e.delta[2], [j - 1 for j in kept.shown[2]])).sum()
    assert block[-1].strip() == f"… 25 more units, Σ|δ| = {rest:.6g}"


def test_of_many_edges_the_largest_are_listed():
    e = random_example(np.random.default_rng(12), "tanh", "softmax", sizes=(9, 7, 6, 4))
    kept = fold(e)
    printed = text.tables(e, kept).partition("\nEdges: ")[2]
    for l, along in ((1, lambda i, j: e.Theta[1][i, j] * [1, *e.a[1]][j]),
                     (2, lambda i, j: e.Theta[2][i, j] * e.delta[3][i] * (j > 0))):  # fmt: skip
        block = printed.partition(f"layer {l} to layer {l + 1}\n")[2].partition("\n\n")[0]
        listed = re.findall(r"^ *Θ_(\d)(\d)\^", block, re.MULTILINE)
        shape = (len(kept.shown[l + 1]), 1 + len(kept.shown[l]))
        units = [(i - 1, j) for i in kept.shown[l + 1] for j in (0, *kept.shown[l])]
        assert len(units) == shape[0] * shape[1] > len(listed) == 16
        assert {(int(i) - 1, int(j)) for i, j in listed} == set(sorted(units, key=lambda ij: -abs(along(*ij)))[:16])
        assert "these have the largest" in block


def test_wrong_units_that_are_not_listed_are_counted():
    e = random_example(np.random.default_rng(5), sizes=(2, 60, 1))
    wrong = replace(e, delta=[None, None, e.delta[2] * 1.01, e.delta[3]])
    printed = text.slopes(wrong, fold(e, 4), check(wrong))
    listed = len(re.findall(r"^ +\d+ .* FAIL$", printed, re.MULTILINE))
    assert 20 <= listed <= 24 and f"… {60 - listed} more units, {60 - listed} of them FAIL" in printed
    assert printed.endswith("FAIL: 60 of 61 δ's are not the slope of C, relative error 1e-07 or less")


def test_the_sign_is_said():
    assert "δ^(L) = a^(L) − y" in text.header(seed_example())
    other = text.header(seed_example("loglik"))
    assert "cost(t) = -0.582666" in other and "δ^(L) = y − a^(L)" in other and "a^(L) − y, is the slope of C" in other
    assert "∂cost(t)/∂z" in text.tables(seed_example("loglik"), fold(seed_example()))
    squares = text.header(random_example(np.random.default_rng(1), J="sigmoid_squares", sign="loglik"))
    assert "−δ is the slope of C" in squares and "a^(L)" not in squares  # its δ^(L) is no difference
