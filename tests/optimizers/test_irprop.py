"""iRprop⁺ against Algorithm 2 of its paper, written once more parameter by parameter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from zoo import ZOO, Problem

from gpubp import optimizers


class Paper:
    """Algorithm 2 of Igel and Hüsken with all that it names: the last steps are kept and not computed anew."""

    def __init__(self, problem: Problem, first: float, most: float) -> None:
        self.problem, self.most = problem, most
        self.theta = list(problem.start)
        P = len(self.theta)
        self.size, self.step, self.before = [first] * P, [0.0] * P, [0.0] * P
        self.J = math.inf
        self.cases: set[str] = set()

    def advance(self) -> None:
        J, gradient = self.problem.J_and_gradient(np.array(self.theta))
        for i, g in enumerate(gradient.tolist()):
            sign = (g > 0) - (g < 0)
            if self.before[i] * g > 0:
                self.cases.add("same")
                self.size[i] = min(self.size[i] * 1.2, self.most)
                self.step[i] = -sign * self.size[i]
                self.theta[i] += self.step[i]
                self.before[i] = g
            elif self.before[i] * g < 0:
                self.size[i] = max(self.size[i] * 0.5, 0.0)
                if J > self.J:
                    self.cases.add("back")
                    self.theta[i] -= self.step[i]
                else:
                    self.cases.add("stay")
                self.before[i] = 0.0
            else:
                self.cases.add("zero")
                self.step[i] = -sign * self.size[i]
                self.theta[i] += self.step[i]
                self.before[i] = g
        self.J = J


@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_every_step_is_the_paper_s(problem):
    paper, optimizer = Paper(problem, 0.1, 0.3), optimizers.make("irprop", first=0.1, most=0.3)
    state = optimizer.init(problem, np.array(problem.start))
    for _ in range(60):
        if optimizer.step(problem, state):
            break
        paper.advance()
        assert state.Theta.tolist() == paper.theta and state.size.tolist() == paper.size
    assert paper.cases == {"same", "back", "stay", "zero"} or len(paper.theta) == 2


def test_only_signs_count():
    """Scaling each parameter's slope by its own positive factor changes no step, as long as J stays."""
    problem = ZOO[0]
    scale = np.logspace(-3, 3, 9)
    scaled = Problem("scaled", lambda T: (problem.J_and_gradient(T)[0], scale * problem.J_and_gradient(T)[1]), (), 3.0)
    optimizer = optimizers.make("irprop", tolerance=0)
    states = [optimizer.init(f, np.array(problem.start)) for f in (problem, scaled)]
    for _ in range(50):
        for f, state in zip((problem, scaled), states, strict=True):
            optimizer.step(f, state)
        assert np.array_equal(states[0].Theta, states[1].Theta)


def test_sizes_keep_within_their_bounds():
    g = np.array([1.0, -1.0])
    plane = Problem("plane", lambda T: (float(g @ T), g), (), 0.0)
    optimizer = optimizers.make("irprop", first=1, most=2, grow=1.5)
    state = optimizer.init(plane, np.zeros(2))
    taken = []
    for _ in range(5):
        before = state.Theta.copy()
        optimizer.step(plane, state)
        taken.append((before - state.Theta)[0])
    assert taken == [1, 1.5, 2, 2, 2]
    bowl = Problem("bowl", lambda T: (float(abs(T[0])), np.sign(T)), (), 0.0)
    optimizer = optimizers.make("irprop", first=1, least=0.25)
    state = optimizer.init(bowl, np.array([0.1]))
    for _ in range(30):
        optimizer.step(bowl, state)
        assert state.size[0] >= 0.25
    assert state.best[1] == pytest.approx(0.1)
