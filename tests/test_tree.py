"""The fixed tree: every row once, one order, whoever does the work."""

from __future__ import annotations

import random
import threading
import time

import pytest

from gpubp.tree import SumTree, blocks, leaf_count, leaf_rows


@pytest.mark.parametrize(("m", "n"), [(1, 1), (10, 4), (7, 8), (1000, 64), (12345, 256)])
def test_leaves_and_blocks_cover_every_row_once(m, n):
    rows = [r for i in range(n) for r in range(*leaf_rows(i, n, m))]
    assert rows == list(range(m))
    for most in (1, 3, 100):
        pieces = blocks(5, 5 + m, most)
        assert [r for u, v in pieces for r in range(u, v)] == list(range(5, 5 + m))
        assert max(v - u for u, v in pieces) <= most


def test_leaf_count_is_a_power_of_two_with_enough_rows():
    assert [leaf_count(m, 512, 256) for m in (1, 511, 1023, 1024, 5000, 10**9)] == [1, 1, 1, 2, 8, 256]


class Sum:
    text = ""


def parenthesised(leaves: int, owners: int, seed: int) -> str:
    """The tree writes down its own order: a leaf is its number, a merge is (left+right) by position."""
    rng = random.Random(seed)

    def fill(owner: int, leaf: int, node: Sum) -> None:
        time.sleep(rng.random() * 1e-3)
        node.text = str(leaf)

    def merge(a: Sum, b: Sum) -> None:
        first, second = sorted((a.text, b.text), key=lambda t: int(t.strip("(").split("+")[0].strip("()")))
        a.text = f"({first}+{second})"

    tree: SumTree[Sum] = SumTree(leaves, owners, Sum, merge)
    try:
        (root,) = tree.root(fill).values()
        return root.text
    finally:
        tree.close()


def test_the_order_of_the_sum_is_fixed():
    assert {parenthesised(8, owners, seed) for owners in (1, 2, 3, 8) for seed in range(3)} == {
        "(((0+1)+(2+3))+((4+5)+(6+7)))"
    }


def test_few_nodes_are_alive():
    made = []

    def make() -> Sum:
        made.append(1)
        return Sum()

    tree = SumTree(64, 2, make, lambda a, b: None)
    for _ in range(3):
        tree.release(list(tree.root(lambda owner, leaf, node: None).values()))
    tree.close()
    assert len(made) <= 2 * (6 + 1)


def test_an_exception_in_any_owner_is_raised_and_stops_the_others():
    filled = []

    def fill(owner: int, leaf: int, node: Sum) -> None:
        if leaf == 40:
            raise RuntimeError("leaf 40")
        filled.append(threading.get_ident())
        time.sleep(1e-3)

    tree = SumTree(64, 2, Sum, lambda a, b: None)
    with pytest.raises(RuntimeError, match="leaf 40"):
        tree.root(fill)
    assert len(filled) < 63
    assert len(tree.root(lambda owner, leaf, node: None)) == 1  # usable again
    tree.close()


def test_leaves_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        SumTree(3, 1, Sum, lambda a, b: None)
