"""Explanations for the tests of drawings and pages: the course's, random ones, wide ones, hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np

from gpubp.explain.record import Explanation, Names, explain
from gpubp.network import Network
from gpubp.pictures import Picture

NASTY = ("<script>alert(1)</script>", "\"&'</title>", "$x_2$ \\frac")


def example(sizes, *, activation="sigmoid", cost="logistic", seed=0, sign="loss", **names) -> Explanation:
    """One random example through a random network; the first output is the one that is wanted."""
    rng = np.random.default_rng(seed)
    network = Network(sizes, activation=activation, cost=cost)
    matrices = [rng.normal(size=Theta.shape) / np.sqrt(Theta.shape[1]) for Theta in network.unpack(np.zeros(network.P))]
    y = rng.normal(size=network.K) if network.J.takes == "numbers" else np.eye(network.K)[0]
    return explain(network, network.pack(matrices), rng.normal(size=sizes[0]), y, sign=sign, names=Names(**names))


@cache
def wide() -> Explanation:
    """784-512-512-10 with a picture, as a trained network of digits has it."""
    outputs = tuple("0123456789")
    found = example((784, 512, 512, 10), cost="softmax", outputs=outputs, picture=Picture(28, 28))
    x = np.random.default_rng(1).integers(0, 256, 784).astype(float)
    return replace(found, x=x)


def nasty() -> Explanation:
    """Names that would break a page which believed them."""
    names = {"features": NASTY, "outputs": NASTY[:2], "example": NASTY[0], "network": NASTY[1], "truth": NASTY[0]}
    return example((3, 2, 2), cost="softmax", **names)


def values_in(text: str) -> list[float]:
    """The numbers of a text that are not indices of symbols; − and e−7 as the page writes them."""
    text = re.sub(r"[A-Za-zΘδ]_[\d,]+(\^\(\d+\))?", "", text)
    return [float(one.replace("−", "-")) for one in re.findall(r"−?\d+(?:\.\d+)?(?:e−?\d+)?", text)]


def half_unit(text: str) -> float:
    """Half a unit of the last digit of a number as it is printed with six digits."""
    value = abs(float(text.replace("−", "-")))
    return 0.5 * 10.0 ** (np.floor(np.log10(value)) - 5) if value else 5e-324
