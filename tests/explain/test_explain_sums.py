"""Sums as they are printed in a terminal and on a page: terms add up to totals, letters stand for the numbers below
them, and both say the same."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from random_networks import EACH, KINDS, random_example

from gpubp import activation, cost
from gpubp.explain import Edge, Explanation, page, sums
from gpubp.explain.fold import fold
from gpubp.explain.notation import Column, as_html, factor, in_pieces, number, symbol, weight
from gpubp.explain.seed import seed_example
from gpubp.explain.sums import backward, forward
from gpubp.explain.text import WIDTH, unit
from gpubp.explain.written import steps, written

_LETTERS = re.compile(r"(Θ|a|δ)_(\d+),?(\d*)\^\((\d+)\)")


def sides(printed: str, name: str) -> list[str]:
    """The right-hand sides of an equation, broken lines put together."""
    lines = printed.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} = "))
    found = [lines[at][len(name) + 3 :]]
    for line in lines[at + 1 :]:
        if line.startswith(" " * len(name) + " = "):
            found.append(line[len(name) + 3 :])
        elif line.startswith(" " * (len(name) + 1)):
            found[-1] += f" {line.strip()}"
        else:
            break
    return found


def value(side: str) -> float:
    """What a printed line of arithmetic comes to."""
    plain = re.sub(r" \([\d,]+ more terms?\)", "", side).replace("−", "-").replace("·10^", "·1e").replace("·", "*")
    assert re.fullmatch(r"[-+*(). \de]+", plain), side
    return float(eval(plain))


def places(side: str) -> tuple[int, float]:
    """How many terms a printed sum has, and one in their last place."""
    power = re.search(r"·10\^(−?\d+)", side)
    scale = 10.0 ** int(power[1].replace("−", "-")) if power else 1.0
    terms = re.findall(r"\d+(?:\.(\d+))?", re.sub(r"·10\^−?\d+|\([\d,]+ more terms?\)", "", side))
    assert len({len(one) for one in terms}) == 1, side  # the same last place
    return len(terms), scale * 10.0 ** -len(terms[0])


def adds_up(products: str, total: str) -> None:
    n, last = places(products)
    assert abs(value(products) - value(total)) <= (n + 1) / 2 * last * 1.0001, f"{products} = {total}"


def with_numbers(e: Explanation, letters: str) -> str:
    """The letters of a sum replaced by the record's numbers, as they should be printed."""

    def one(found: re.Match[str]) -> str:
        letter, first, second, layer = found.groups()
        if letter != "Θ":
            return factor(getattr(e, "a" if letter == "a" else "delta")[int(layer)][int(first + second) - 1])
        if not second:
            first, second = first[:1], first[1:]
        return factor(e.Theta[int(layer)][int(first) - 1, int(second)])

    return _LETTERS.sub(one, letters)


def on_page(written_page: str, l: int, j: int) -> str:
    """What the page says of a unit, as a terminal would: first z and a, then δ."""
    article = written_page.partition(f'<article id="unit-{l}-{j}">')[2].partition("</article>")[0]
    lines = []
    for way in ("forth", "back"):
        indent = ""
        for line in re.findall("<p.*?>(.*?)</p>", re.findall(f'<div class="formula {way}">(.*?)</div>', article)[0]):
            plain = html.unescape(re.sub("<.*?>", "", line.replace("<sub>", "_").replace("<sup>", "^")))
            plain = plain.replace("\u00a0", " ")
            lines.append(f"{indent} {plain}" if plain.startswith("= ") else plain)
            indent = indent if plain.startswith("= ") else " " * plain.index(" = ")
    return "\n".join(lines)


def of_unit(e: Explanation, l: int, j: int, top: int = 8) -> None:
    """Everything that a terminal shows of a unit holds."""
    printed = unit(e, l, j, top=top)
    assert max(map(len, printed.splitlines())) <= WIDTH + 10
    holds(e, l, j, printed)


def holds(e: Explanation, l: int, j: int, printed: str) -> None:
    """Everything that is said of a unit."""
    letters, numbers, products, total = sides(printed, f"z_{j}^({l})")
    assert with_numbers(e, letters) == numbers
    adds_up(products, total)
    _, last = places(products)
    assert value(total) == pytest.approx(float(e.z[l][j - 1]), abs=last, rel=1e-5)
    name = f"δ_{j}^({l})"
    lines = sides(printed, name)
    assert lines[-1] == number(e.delta[l][j - 1])
    if l == e.L:
        return
    *_, products, summed, last_line = lines if len(lines) == 5 else [*lines[:1], *lines]
    slope = factor(e.slope[l][j - 1])
    assert lines[0].endswith(f" · g′(z_{j}^({l}))") and summed.endswith(f" · {slope}")
    if len(lines) == 5:
        assert with_numbers(e, lines[0].rpartition(" · ")[0]) == lines[1].rpartition(" · ")[0]
        inner, outer = products.rpartition(" · ")[0], summed.rpartition(" · ")[0]
        adds_up(inner.removeprefix("(").removesuffix(")") if "·10^" not in inner else inner[1:-1], outer)
        _, last = places(outer)
        assert value(outer) * value(slope) == pytest.approx(value(last_line), abs=last * abs(value(slope)), rel=2e-5)


@pytest.mark.parametrize(("g", "J"), KINDS)
def test_printed_terms_add_up_for_every_unit_of_random_networks(g, J):
    rng = np.random.default_rng(17 * len(g) + len(J))
    for i in range(4):  # × 32 pairs
        e = random_example(rng, g, J, size=[1.5, 0.02, 8, 1e-5][i], sign="loglik" if i == 2 else "loss")
        for l in range(2, e.L + 1):
            for j in range(1, e.network.sizes[l - 1] + 1):
                of_unit(e, l, j)


@pytest.mark.parametrize(("g", "J"), EACH)
def test_the_page_adds_up_and_says_what_the_terminal_says(g, J):
    rng = np.random.default_rng(19 * len(g) + len(J))
    for i in range(3):
        e = random_example(rng, g, J, sizes=(5, 13, 4, 3), size=[1.5, 1e-3, 20][i], sign="loglik" if i else "loss")
        folded, whole = page.html(e, fold(e, 4)), page.html(e, fold(e, 0))
        for l in (2, 3, 4):
            for j in range(1, e.network.sizes[l - 1] + 1):
                assert on_page(whole, l, j) == in_one_line(unit(e, l, j, top=0))
            for j in fold(e, 4).shown[l]:
                holds(e, l, j, on_page(folded, l, j))
        assert "(1 more term)" in folded and "(9 more terms)" in folded and "more term" not in whole


def in_one_line(printed: str) -> str:
    """Lines that were broken put together."""
    return re.sub(r"\n +(?=[+−] )", " ", printed)


def test_long_sums_name_the_largest_terms_and_add_the_others():
    e = random_example(np.random.default_rng(3), "tanh", "softmax", sizes=(50, 30, 14))
    for j in (1, 30):
        of_unit(e, 2, j, top=5)
        of_unit(e, 2, j, top=0)
    printed = unit(e, 2, 1, top=5)
    letters, _, products, _ = sides(printed, "z_1^(2)")
    assert letters.endswith("+ … (46 more)") and products.endswith("(46 more terms)")
    largest = np.argsort(-np.abs(e.Theta[1][0] * [1.0, *e.a[1]]))[:5]
    assert re.findall(r"Θ_1,?(\d+)", letters) == [str(i) for i in largest]
    assert "Θ_1,12^(1)" in unit(e, 2, 1, top=0)


def test_the_seeds_sum_as_the_seed_writes_it():
    e = seed_example()
    lines = unit(e, 2, 2, literal=True).splitlines()
    shown = [line[4:] for line in str(sums.__doc__).splitlines() if line.startswith("    ")]
    assert len(shown) == 5 and "\n".join(shown) in "\n".join(lines)
    assert "δ_2^(2) = (Θ_12^(2)·δ_1^(3) + Θ_22^(2)·δ_2^(3)) · g′(z_2^(2))" in lines
    assert "        = (0.6·(−0.120954) + 1.2·0.0797257) · 0.225348" in lines
    assert "g′(z_2^(2)) = a_2^(2)·(1 − a_2^(2)) = 0.65701·(1 − 0.65701) = 0.225348" in lines
    first, second = 1.1 * e.delta[4][0], -0.9 * e.delta[4][0]
    assert 0.6 * first + 1.2 * second == pytest.approx(e.literal()[2][1], rel=1e-14)
    assert lines[-1].strip() == f"= {number(0.6 * first + 1.2 * second)}"
    assert sides(unit(e, 4, 1), "δ_1^(4)") == ["a_1^(4) − y", "0.558408 − 1", "−0.441592"]
    assert sides(unit(seed_example("loglik"), 4, 1), "δ_1^(4)")[0] == "y − a_1^(4)"


def test_the_output_of_another_pair_is_written_by_its_own_formula():
    e = random_example(np.random.default_rng(6), "tanh", "sigmoid_squares", sizes=(3, 4, 2))
    letters, numbers, total = sides(unit(e, 3, 2), "δ_2^(3)")
    assert letters == "(a_2^(3) − y_2)·a_2^(3)·(1 − a_2^(3))"
    assert value(numbers) == pytest.approx(value(total), rel=1e-4)
    turned = random_example(np.random.default_rng(6), "tanh", "sigmoid_squares", sizes=(3, 4, 2), sign="loglik")
    assert sides(unit(turned, 3, 2), "δ_2^(3)")[0] == f"−({letters})"


def test_a_slope_with_a_kink_says_which_side_it_is():
    e = random_example(np.random.default_rng(6), "relu", "squares", sizes=(3, 9, 1))
    said = {unit(e, 2, j).splitlines()[-2].partition(": ")[::2] for j in range(1, 10)}
    assert {letters.replace("_", " ").split()[-1] for letters, _ in said} == {"0", "1"}
    assert all(re.fullmatch(r"1 where a_\d\^\(2\) > 0, else 0", formula) for _, formula in said)


def test_a_difference_of_nearly_equal_numbers_is_seen():
    from gpubp.explain import explain
    from gpubp.network import Network

    e = explain(Network((1, 1), "tanh", "logistic"), np.array([18.0] + [0.0] * 31), np.ones(1), np.ones(1))
    assert abs(e.delta[2][0]) < 1e-7
    _, numbers, total = sides(unit(e, 2, 1), "δ_1^(2)")
    assert value(numbers) == pytest.approx(value(total), rel=1e-4)


@pytest.mark.parametrize("z", [-1.7, 0.4])
def test_a_written_formula_computes_what_the_formula_does(z):
    functions = {"exp": np.exp, "tanh": np.tanh, "expm1": np.expm1}

    def computed(printed: str) -> float:
        this, _, rest = printed.partition(" where ")
        condition, _, other = rest.partition(", else ")
        plain = f"({this}) if ({condition}) else ({other})" if rest else printed
        return float(eval(plain.replace("−", "-").replace("·", "*"), functions))

    for name in activation.names():
        g = activation.activation(name).slope
        a = float(activation.activation(name).g(np, np.array(z), 0.0))
        given = {"e": 1.0, "a": None} if g.takes("a") else {"e": 1.0, "z": None, "b": 0}
        found = steps(g, **given)
        assert found is not None
        printed = written(found, {"a": repr(a).replace("-", "−"), "z": repr(z).replace("-", "−")}, repr)
        exact = g(np, 1.0, np.array(a)) if g.takes("a") else g(np, 1.0, np.array(z), 0.0)
        assert computed(printed) == pytest.approx(float(exact), rel=1e-12), name
    for name in cost.names():
        found = steps(cost.cost(name).delta, h=None, y=None, w=1.0)
        assert found is not None
        printed = written(found, {"h": "0.3", "y": "(−2.0)"}, repr)
        assert computed(printed) == pytest.approx(float(cost.cost(name).delta(np, 0.3, -2.0, 1.0)), rel=1e-12)


def test_numbers_of_a_column_have_one_last_place():
    assert [Column([1234.5678, 0.01]).signed(v) for v in (1234.5678, -0.01)] == [("", "1234.57"), ("−", "0.01")]
    assert Column([3e-9]).number(-3e-9) == "−3.00000·10^−9"
    assert Column([2e12, 1]).number(2e12) == "2.00000·10^12"
    assert Column([0.0]).number(0.0) == "0.00000" and Column([]).number(0.0) == "0.00000"
    assert Column([1.0]).signed(-1e-9) == ("", "0.00000")


def test_a_term_says_which_edge_it_is():
    e = random_example(np.random.default_rng(4), "tanh", "softmax", sizes=(9, 12, 12, 3))
    shown = fold(e, 3)
    j = shown.shown[2][0]
    for side in backward(e, 2, j, shown.split)[0].sides[:2]:
        assert [token.edge for token in side if token.edge] == [*((2, to, j) for to in shown.shown[3]), (2, "rest", j)]
    for side in forward(e, 2, j, shown.split)[0].sides[:3]:
        ours = [(1, j, 0), *((1, j, i) for i in shown.shown[1]), (1, j, "rest")]
        assert [token.edge for token in side if token.edge] == ours


def test_numbers_and_symbols_are_set_alike():
    values = (0.0, -0.0, 1.0, -0.01234567, 1.5e-7, -2e20)
    assert [number(v) for v in values] == ["0", "0", "1", "−0.0123457", "1.5e−07", "−2e+20"]
    assert number(0.0123456, 4) == "0.01235" and factor(-1.5) == "(−1.5)" and factor(1.5) == "1.5"
    assert symbol("δ", 2, 3) == "δ_2^(3)" and weight(Edge(2, 1, 12)) == "Θ_1,12^(2)"
    assert as_html(weight(Edge(2, 1, 12))) == "Θ<sub>1,12</sub><sup>(2)</sup>"
    assert as_html("3.00000·10^−9 < leaky_relu(z_10^(2))") == (
        "3.00000·10<sup>−9</sup> &lt; leaky_relu(z<sub>10</sub><sup>(2)</sup>)"
    )
    assert [part.place for part in in_pieces("Σ_i Θ_ij^(l)·δ_i")] == ["on", "sub", "on", "sub", "sup", "on", "sub"]
