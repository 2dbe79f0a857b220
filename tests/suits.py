"""What the tests try the optimizers with: an entry for each in `SUITS`, and no other table of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpubp import optimizers
from gpubp.optimizers.wandering import Wandering

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Suit:
    """Options of one optimizer.

    Attributes:
        zoo: where its defaults do not arrive at the minimum of a function of `optimizers/zoo.py`, under that one's
            name. Those for "quadratic" are taken on the device too.
        wild: by which J rises on every function of the zoo; a `Wandering` one has some.
        restless: by which J rises and falls in the small trainings of `torture/test_fields.py`; a `Wandering` one has
            some.
        needs_curvature: whether it does nothing where it is not told how J curves.
    """

    zoo: Mapping[str, Options] = field(default_factory=dict)
    wild: Options = field(default_factory=dict)
    restless: Options = field(default_factory=dict)
    needs_curvature: bool = False


SUITS: dict[str, Suit] = {
    "adam": Suit(
        zoo={"rosenbrock": {"learning_rate": 0.1}, "rosenbrock chain": {"learning_rate": 0.05}},
        wild={"learning_rate": 10},
        restless={"learning_rate": 0.7},
    ),
    "cg": Suit(),
    "gd": Suit(
        zoo={
            "quadratic": {"learning_rate": 0.018},
            "rosenbrock": {"learning_rate": 0.0019},
            "rosenbrock chain": {"learning_rate": 0.001},
            "beale": {"learning_rate": 0.03},
            "himmelblau": {"learning_rate": 0.01},
        },
        wild={"learning_rate": 0.5},
        restless={"learning_rate": 30.0},
    ),
    "gn": Suit(needs_curvature=True),
    "irprop": Suit(
        zoo={"rosenbrock": {"shrink": 0.7}, "rosenbrock chain": {"shrink": 0.7}},
        wild={"first": 5, "most": 1e9, "shrink": 0.9},
        restless={"first": 2.0},
    ),
    "klbfgs": Suit(),
    "lbfgs": Suit(),
    "lm": Suit(needs_curvature=True),
    "nesterov": Suit(
        zoo={
            "quadratic": {"learning_rate": 0.01},
            "rosenbrock": {"learning_rate": 0.001},
            "rosenbrock chain": {"learning_rate": 0.0005},
            "beale": {"learning_rate": 0.01},
            "himmelblau": {"learning_rate": 0.01},
        },
        wild={"learning_rate": 0.3},
        restless={"learning_rate": 8.0},
    ),
    "scg": Suit(),
}
# One without an entry is tried nowhere: a test in `optimizers/test_optimizers.py` says so, once.
NAMES = [name for name in optimizers.names() if name in SUITS]
WANDERING = [name for name in NAMES if issubclass(optimizers.of(name), Wandering)]


def on(name: str, problem: str) -> dict[str, Any]:
    """The options of an optimizer on that function of the zoo."""
    return dict(SUITS[name].zoo.get(problem, {}))


def advice(name: str, problem: str) -> str:
    """What to do where an optimizer does not arrive that is sound."""
    return f"where no fault is in {name}, its entry in SUITS of tests/suits.py wants options: zoo={{'{problem}': …}}"
