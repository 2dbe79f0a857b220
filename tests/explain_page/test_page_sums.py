"""The sums that are printed are those of the record, and their terms add up."""

from __future__ import annotations

import re

import pytest
from page_examples import example, half_unit

from gpubp import activation, cost
from gpubp.explain import sums
from gpubp.explain.fold import fold
from gpubp.explain.notation import as_html, factor, number, symbol, weight
from gpubp.explain.record import Edge
from gpubp.explain.seed import seed_example

NUMBER = r"−?\d+(?:\.\d+)?(?:e−?\d+)?"
COSTS = [name for name in cost.names()]


def value(text: str) -> float:
    return float(text.strip("()").replace("−", "-"))


def products(line: str) -> list[tuple[float, float]]:
    """The terms of a line of numbers: what each comes to, and by how much its digits may be off."""
    found = []
    for term in line.split(" + "):
        parts = [part.strip("()") for part in term.split("·")]
        worth = [value(part) for part in parts]
        if len(parts) == 1:
            found.append((worth[0], half_unit(parts[0])))
        else:
            slack = abs(worth[0]) * half_unit(parts[1]) + abs(worth[1]) * half_unit(parts[0])
            found.append((worth[0] * worth[1], 1.01 * slack))
    return found


def assert_adds_up(line: str, total: str) -> None:
    terms = products(line)
    assert abs(sum(t for t, _ in terms) - value(total)) <= sum(s for _, s in terms) + half_unit(total)


@pytest.mark.parametrize("name", activation.names())
@pytest.mark.parametrize("cost_", COSTS)
def test_every_printed_sum_adds_up_to_its_total(name, cost_):
    for seed in range(3):
        e = example((5, 13, 4, 3), activation=name, cost=cost_, seed=seed)
        shown = fold(e, top=4)
        for l in (2, 3, 4):
            for j in shown.shown[l]:
                _, numbers, total, last = map(sums.text_of, sums.forward(e, shown, l, j))
                assert_adds_up(numbers.removeprefix(" = "), total.removeprefix(" = "))
                assert value(total.removeprefix(" = ")) == pytest.approx(e.z[l][j - 1], rel=6e-6)
                assert value(last.rsplit(" = ")[-1]) == pytest.approx(e.a[l][j - 1], rel=6e-6)
                if l == 4:
                    continue
                _, numbers, product, delta = map(sums.text_of, sums.backward(e, shown, l, j))
                inner, slope = re.fullmatch(rf" = \((.*)\) · (\(?{NUMBER}\)?)", numbers).groups()
                s, again = product.removeprefix(" = ").split(" · ")
                assert_adds_up(inner, s)
                assert slope == again and value(s) == pytest.approx(e.s[l][j - 1], rel=6e-6)
                assert value(delta.removeprefix(" = ")) == pytest.approx(e.delta[l][j - 1], rel=6e-6)
                assert value(delta.removeprefix(" = ")) == pytest.approx(value(s) * value(slope), rel=2e-5, abs=1e-300)


def test_the_sum_of_the_course_word_for_word():
    """Θ and x are made up; the figures were computed by hand from them, with four digits of a, δ and g′."""
    e = seed_example()
    symbols, numbers, *_ = map(sums.text_of, sums.backward(e, fold(e), 2, 2))
    assert symbols == "δ_2^(2) = (Θ_12^(2)·δ_1^(3) + Θ_22^(2)·δ_2^(3)) · g′(z_2^(2))"
    assert numbers == " = (0.6·(−0.120954) + 1.2·0.0797257) · 0.225348"
    lines = [sums.text_of(line) for line in sums.forward(e, fold(e), 3, 1)]
    assert lines[0] == "z_1^(3) = Θ_10^(2)·1 + Θ_11^(2)·a_1^(2) + Θ_12^(2)·a_2^(2)"  # a_2, as the seed's note mends it
    assert lines[-1].startswith("a_1^(3) = g(z_1^(3)) = sigmoid(0.126475) = 0.53157")


def test_an_output_shows_the_difference_where_it_is_one_and_says_where_it_is_not():
    e = seed_example()
    first, numbers, total = map(sums.text_of, sums.backward(e, fold(e), 4, 1))
    assert first == "δ_1^(4) = a_1^(4) − y_1" and numbers == " = 0.558408 − 1" and total == " = −0.441592"
    first, numbers, total = map(sums.text_of, sums.backward(seed_example("loglik"), fold(e), 4, 1))
    assert first == "δ_1^(4) = y_1 − a_1^(4)" and numbers == " = 1 − 0.558408" and total == " = 0.441592"
    e = example((2, 2, 1), cost="sigmoid_squares")
    slope, away = map(sums.text_of, sums.backward(e, fold(e), 3, 1))
    assert slope == f"δ_1^(3) = ∂C/∂z_1^(3) = {number(e.delta[3][0], 6)}"
    assert away == f"with this cost it is not a_1^(3) − y_1 = {number(e.a[3][0] - 1, 6)}"


def test_a_term_says_which_edge_it_is():
    e = example((9, 12, 12, 3), cost="softmax")
    shown = fold(e, top=3)
    j = shown.shown[2][0]
    edges = [token.edge for token in sums.backward(e, shown, 2, j)[0] if token.edge]
    assert edges == [*((2, to, j) for to in shown.shown[3]), (2, "rest", j)]
    edges = [token.edge for token in sums.forward(e, shown, 2, j)[1] if token.edge]
    assert edges == [(1, j, 0), *((1, j, i) for i in shown.shown[1]), (1, j, "rest")]


def test_symbols_and_numbers():
    assert as_html(symbol("δ", 2, 3)) == "δ<sub>2</sub><sup>(3)</sup>"
    assert as_html(weight(Edge(2, 1, 12))) == "Θ<sub>1,12</sub><sup>(2)</sup>"
    assert [number(v) for v in (0.0, -0.0, 1.0, -0.0123456, 1.5e-7, -2e20)] == [
        "0", "0", "1", "−0.01235", "1.5e−7", "−2e20"
    ]  # fmt: skip
    assert factor(-1.5) == "(−1.5)" and factor(1.5) == "1.5"
