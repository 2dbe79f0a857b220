"""The numerical gradient beside backpropagation's: a right one passes, a wrong one fails, and what cannot be told is
said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from in_process import ran
from running import write

import gpubp
from gpubp import activation, cost, diagnostics
from gpubp.backend import choose, gpu_status
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.diagnostics import gradient_check, numerical_slopes
from gpubp.network import Network
from gpubp.objective import Objective
from gpubp.tangent import rounding, tangent

CPU = {kernel: choose("cpu", kernel=kernel, threads=1)[0] for kernel in ("numpy", "compiled")}
SIZES = (4, 6, 5, 3)


def objective(
    g: str = "tanh", J: str = "logistic", *, precision: str = "fp64", kernel: str = "numpy", lambda_: float = 0.7,
    weights: np.ndarray | None = None, m: int = 23, seed: int = 0,
) -> tuple[Objective, np.ndarray]:  # fmt: skip
    """A small random network with its rows, and a Θ."""
    rng = np.random.default_rng(seed)
    network = Network(SIZES, g, J)
    X = rng.normal(size=(m, SIZES[0]))
    y = rng.normal(size=(m, SIZES[-1])) if J == "squares" else (rng.random((m, SIZES[-1])) < 0.4).astype(float)
    if J == "softmax":
        y = rng.integers(0, SIZES[-1], m).astype(np.int32)
    rows = Rows(ArrayRows(X), X, Scaling("none", None, None), y, weights)
    Theta = network.pack([rng.normal(size=(o, i + 1)) * 0.7 for i, o in pairwise(SIZES)])
    return Objective(network, rows, lambda_, backend=CPU[kernel], precision=precision), Theta


class Wrong(Objective):
    """An objective whose gradient something was done to."""

    def __init__(self, right: Objective, harm) -> None:
        self.__dict__ |= right.__dict__
        self._harm = harm

    def value_and_gradient(self, Theta, out):
        J = super().value_and_gradient(Theta, out)
        self._harm(self, Theta, out)
        return J


# The slope of a function of one number.


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (math.exp, 1.0),
        (lambda x: math.sin(300 * x + 0.3), 300 * math.cos(0.3)),
        (lambda x: 0.7 + 1e-9 * x + x**3, 1e-9),
        (lambda x: math.exp(3e3 * x) if x < 0.01 else math.inf, 3e3),
        (lambda x: 1 + 1e-3 * max(x + 1e-4, 0), 1e-3),  # a kink near by
        (lambda x: 2.0, 0.0),
    ],
)
def test_a_slope_is_as_far_from_the_true_one_as_it_says_at_most(f, slope):
    found = tangent(f, f(0.0), rounding(f, 2.0**-33))
    assert abs(found.slope - slope) <= found.uncertainty and not found.kink
    assert found.uncertainty <= 1e-10 * max(abs(slope), 1)
    sooner = tangent(f, f(0.0), rounding(f, 2.0**-33), wanted=1e-7 * abs(slope))
    assert abs(sooner.slope - slope) <= sooner.uncertainty and sooner.evaluations <= found.evaluations


def test_a_kink_is_told_and_its_slope_is_not_believed():
    found = tangent(lambda x: 1 + max(x, 0) * 1e-3, 1.0, 1e-16)
    assert found.kink and found.jump == pytest.approx(1e-3) and found.uncertainty >= 5e-4


def test_rounding_is_measured():
    rng = np.random.default_rng(1)
    noise = rounding(lambda x: math.sin(x) + 1e-9 * rng.normal(), 1e-6)
    assert 1e-9 < noise < 12e-9  # four standard deviations, of twelve values
    assert rounding(lambda x: 3.0, 1e-6) == 3 * 2.0**-53


# A right gradient passes.


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_every_activation_with_every_cost_passes(g, J):
    f, Theta = objective(g, J)
    slopes = numerical_slopes(diagnostics.reference(f), Theta, elements=8)
    found = gradient_check(f, Theta, slopes=slopes)
    assert found.verdict == "PASS" and [layer.layer for layer in found.layers] == [1, 2, 3]
    assert all(layer.error < 1e-9 and layer.directional < 1e-9 for layer in found.layers)
    for kernel in CPU:
        f, _ = objective(g, J, precision="fp32", kernel=kernel)
        found = gradient_check(f, Theta, slopes=slopes)
        assert found.verdict == "PASS" and found.tolerance == 2e-6
        assert all(1e-9 < layer.error < 1e-6 for layer in found.layers)  # it is that pass which was looked at


def test_all_elements_and_row_weights():
    f, Theta = objective("gelu", "softmax", weights=np.linspace(0, 2, 23))
    found = gradient_check(f, Theta, elements=0)
    assert [layer.elements for layer in found.layers] == [6 * 5, 5 * 7, 3 * 6] and found.verdict == "PASS"


# A wrong one fails.


def biases_dropped(f, Theta, out):
    f.network.views(out).b[2][...] = 0


def lambda_dropped(f, Theta, out):
    for W, of_Theta in zip(f.network.views(out).W[1:], f.network.views(Theta).W[1:], strict=True):
        W -= f.lambda_ / f.rows.weight_sum * of_Theta


def lambda_of_biases(f, Theta, out):
    f.network.views(out).b[1][...] += f.lambda_ / f.rows.weight_sum * f.network.views(Theta).b[1]


def sign(f, Theta, out):
    f.network.views(out).W[1][...] *= -1


def factor(f, Theta, out):
    f.network.views(out).W[3][...] *= 1 + 1e-5


def one_element(f, Theta, out):
    f.network.views(out).W[2][3, 4] += 1e-5  # among those that are not tried


@pytest.mark.parametrize(
    ("harm", "layer"),
    [(biases_dropped, 2), (lambda_dropped, 1), (lambda_of_biases, 1), (sign, 1), (factor, 3), (one_element, 2)],
)
def test_a_fault_fails_in_its_layer(harm, layer):
    f, Theta = objective()
    found = gradient_check(Wrong(f, harm), Theta, elements=6)
    verdicts = [one.verdict for one in found.layers]
    assert found.verdict == "FAIL" and verdicts[layer - 1] == "FAIL" and found.whole.verdict == "FAIL"
    if harm is not lambda_dropped:
        assert verdicts.count("FAIL") == 1
    if harm is one_element:  # seen by the directions alone
        assert found.layers[1].error < 1e-9 and found.layers[1].directional > 1e-7


def test_a_fault_of_a_thousandth_fails_at_fp32():
    def harm(f, Theta, out):
        f.network.views(out).W[2][...] *= 1.001

    f, Theta = objective(precision="fp32", kernel="compiled")
    found = gradient_check(Wrong(f, harm), Theta)
    assert [one.verdict for one in found.layers] == ["PASS", "FAIL", "PASS"]
    assert 3e-4 < found.layers[1].error < 5.1e-4  # ‖e‖ of ‖g‖ + ‖(1 + e)g‖, but for the biases


# What cannot be told is said.


def test_kinks_are_counted_and_not_judged():
    f, Theta = objective("relu")
    _, b = f.network.views(Theta)
    f.rows.kept[0] = 0  # this row meets the biases alone
    b[1][0, 0] = 0.0
    found = gradient_check(f, Theta, elements=0)
    first = found.layers[0]
    assert first.kinks == 1 and first.verdict == "PASS" and "kink" in first.why  # the bias; x = 0 moves no weight
    assert first.elements == 30 and first.worst["name"].endswith("^(1)")


def test_where_kinks_are_all_there_is_backpropagation_has_to_lie_between_both_slopes():
    f = lambda x: 1 + (3 * x if x > 0 else x)  # noqa: E731
    tangents = [tangent(f, 1.0, 1e-16)]
    slopes = numerical_slopes(*objective("relu"), elements=1)
    part = replace(slopes.parts[0], where=np.array([0]), chosen=np.array([0]), elements=tangents,
                   signs=np.ones((1, 1), np.int8), directions=tangents)  # fmt: skip
    for value, verdict in ((1.0, "PASS"), (2.5, "PASS"), (3.0, "PASS"), (0.9, "UNDECIDED"), (3.1, "UNDECIDED")):
        found = diagnostics._judged(part, np.array([value]), slopes, 1e-7, 0.0)
        assert found.verdict == verdict and found.kinks == 1 and found.error is None, value


def test_a_dead_layer_is_measured_by_the_whole_gradient():
    f, Theta = objective("relu", lambda_=0.0)
    f.network.views(Theta).b[1][...] = -100
    found = gradient_check(f, Theta)
    first = found.layers[0]
    assert first.dead and first.error == 0 and first.verdict == "PASS" and "dead" in first.why

    def dies(f, Theta, out):
        f.network.views(out).W[1][...] = f.network.views(out).b[1][...] = 0

    alive, Theta = objective("tanh", lambda_=0.0)
    assert gradient_check(Wrong(alive, dies), Theta).layers[0].verdict == "FAIL"


def test_of_each_matrix_a_bias_is_among_the_elements_tried():
    f, Theta = objective()
    for seed in range(12):  # by chance there would be none in every third of them
        for part in numerical_slopes(f, Theta, elements=3, seed=seed).parts[:-1]:
            assert len(set(part.chosen.tolist())) == 3 and (part.chosen % part.width == 0).any()


def test_the_element_of_the_largest_difference_is_named():
    f, Theta = objective()

    def harm(self, Theta, out):
        out[where] += 0.25

    places = f.network.unpack(np.arange(f.network.P, dtype=float))
    where = int(places[1][3, 6])  # of Θ^(2), 5 × 7: to unit 4, from unit 6
    worst = gradient_check(Wrong(f, harm), Theta, elements=0).layers[1].worst
    assert worst is not None and (worst["row"], worst["column"], worst["name"]) == (3, 6, "Θ_46^(2)")
    assert worst["backprop"] - worst["numerical"] == pytest.approx(0.25, rel=1e-6)


def test_all_together_may_fail_though_no_layer_does():
    f, Theta = objective()
    found = gradient_check(f, Theta)
    assert found.verdict == "PASS" and replace(found, whole=replace(found.whole, verdict="FAIL")).verdict == "FAIL"
    assert replace(found, whole=replace(found.whole, verdict="UNDECIDED")).verdict == "PASS"


def test_what_the_sampled_elements_do_not_see_is_no_pass():
    """Between what is allowed and what rounding alone can make nothing is known, whichever of both measures says so."""
    f, Theta = objective()
    slopes = numerical_slopes(f, Theta, elements=3)
    gradient = np.zeros(f.network.P)
    f.value_and_gradient(Theta, gradient)
    part = slopes.parts[0]
    assert diagnostics._judged(part, gradient, slopes, 1e-7, 1e-3).verdict == "PASS"
    unseen = next(i for i in range(part.where.size) if i not in set(part.chosen.tolist()))
    gradient[part.where[unseen]] += 1e-5 * slopes.sizes[0]
    told = diagnostics._judged(part, gradient, slopes, 1e-7, 1e-3)
    assert told.error < 1e-9 and 1e-6 < told.directional < 1e-4 and told.verdict == "UNDECIDED"
    assert diagnostics._judged(part, gradient, slopes, 1e-7, 0.0).verdict == "FAIL"


def converged() -> tuple[Objective, np.ndarray]:
    f, _ = objective("tanh", "squares", m=40, lambda_=1.0)
    options = {"tolerance": 1e-13}
    fitted = gpubp.train(
        f.rows.kept, f.rows.labels, hidden=SIZES[1:-1], activation="tanh", cost="squares", scale="none",
        options=options, precision="fp64", iterations=2000, backend="cpu", kernel="numpy",
    )  # fmt: skip
    return f, fitted.Theta


def test_slopes_below_the_rounding_of_J_are_undecided_and_a_gross_fault_fails_all_the_same():
    f, Theta = converged()
    found = gradient_check(f, Theta)
    assert found.verdict == "UNDECIDED" and "rounding" in found.layers[0].why
    assert all(layer.verdict == "UNDECIDED" and layer.error is None for layer in found.layers)

    def off(f, Theta, out):
        f.network.views(out).b[2][...] += 1e-6

    assert gradient_check(Wrong(f, off), Theta).verdict == "FAIL"


def test_where_float32_itself_is_far_off_it_is_undecided():
    f, Theta = converged()
    Theta = Theta + 1e-4 * f.network.pack([np.ones((o, i + 1)) for i, o in pairwise(SIZES)])
    exact = gradient_check(f, Theta)
    assert exact.verdict == "PASS"
    single = Objective(f.network, f.rows, f.lambda_, backend=CPU["compiled"], precision="fp32")
    found = gradient_check(single, Theta)
    assert found.verdict == "UNDECIDED" and "rounding at this precision" in " ".join(one.why for one in found.layers)
    assert gradient_check(Wrong(single, sign), Theta).verdict == "FAIL"


# The command.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 90)
    X = rng.normal(size=(90, 12)) + rng.normal(size=(3, 12))[y]
    X[::7, 3] = np.nan
    path = write(folder / "d.h5", X=X, y=y, weights=np.linspace(0, 2, 90))
    done = ran("train", path, "--out", folder / "run", "--hidden", 5, "--iterations", 5, "--missing", "mean",
               "--weights", "weights")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_command_says_what_it_found(trained):
    done = ran("check", trained / "run", trained / "d.h5", "--rows", 50)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == f"PASS: 50 rows, CPU {kernel(done)} fp64, λ = 1, wanted 1e-07 or less"
    assert lines[0].split()[:3] == ["elements", "relative", "error"] and "PASS" in lines[1] and "Θ_" in lines[1]


def kernel(done) -> str:
    return "compiled" if "compiled loop" in done.stderr else "numpy"


@pytest.mark.parametrize("name", ["numpy", "compiled"])
def test_every_precision_of_a_kernel(trained, name):
    found = ran("check", trained / "run", trained / "d.h5", "--precision", "all", "--kernel", name, "--json").json
    assert found["passed"] and [one["precision"] for one in found["checks"]] == ["fp64", "fp32"]
    assert found["kernel"] == name and found["rows"] == 90 and found["lambda"] == 1
    errors = [one["layers"][0]["error"] for one in found["checks"]]
    assert errors[0] < 1e-9 < errors[1] < 2e-6
    assert {"layer", "elements", "error", "worst", "passed"} <= set(found["checks"][0]["layers"][0])


def test_a_tolerance_that_nothing_meets_fails_with_exit_code_1(trained):
    done = ran("check", trained / "run", trained / "d.h5", "--tolerance", 1e-9, "--precision", "fp32", "--json")
    assert done.returncode == 1 and done.json["verdict"] == "FAIL" and not done.json["passed"]
    text = ran("check", trained / "run", trained / "d.h5", "--tolerance", 1e-9, "--precision", "fp32").stdout
    assert text.splitlines()[-1].startswith("FAIL: 90 rows") and json.loads(done.stdout)["tolerance"] == 1e-9


def test_a_precision_that_the_cpu_lacks_is_refused(trained):
    done = ran("check", trained / "run", trained / "d.h5", "--precision", "tf32", "--backend", "cpu")
    assert done.returncode == 2 and "tf32" in done.error


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fused", "layered"])
def test_every_precision_of_the_gpu(trained, name):
    if not gpu_status()[0]:
        pytest.skip(gpu_status()[1])
    found = ran("check", trained / "run", trained / "d.h5", "--precision", "all", "--kernel", name, "--json").json
    assert found["passed"], found
