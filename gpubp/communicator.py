"""The upper part of the sum tree: where the owners of its leaves are several processes.

An objective computes the nodes of the leaves it owns and hands them to `combine`, which continues the very same binary
tree until the root is known to everyone. With one process nothing is left to do: the objective's own tree ends at the
root. More ranks are another class with these members, never another code path.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

Node = TypeVar("Node")


class Communicator(Protocol):
    """What an objective needs of the other processes."""

    rank: int
    size: int

    def combine(self, nodes: dict[int, Node]) -> Node:
        """The root of the tree, from this rank's topmost nodes by heap index (root 1, children 2i and 2i + 1)."""
        ...


class Solo:
    """One process: rank 0 of 1."""

    rank = 0
    size = 1

    def combine(self, nodes: dict[int, Node]) -> Node:
        """The root is the one node there is."""
        return nodes[1]
