"""The processes that train together, its ranks: where the owners of a sum tree's leaves are several processes.

Every rank runs the same program on the same Θ. Of the sum over rows each computes the leaves that are its own, and the
very same binary tree goes on across them until all have the root (`top`). What follows from the root is the same
everywhere, so no bit depends on the number of ranks, and optimizers never see one. One process alone is the trivial
case: all leaves are its own, and its root is the root.

`launcher` knows how the processes were started, `top` the upper part of the tree, `ranks` what all communicators over
several processes have in common, `mpi` how numbers travel by MPI, `nccl` how nodes do between GPUs, `watchdog` ends
what waits in vain, and `pulse` tells it from waiting for rank 0's disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:  # `launcher` is asked before anything heavy is loaded
    import numpy as np

    from ..errors import GpubpError

Array = Any
Part: TypeAlias = "tuple[tuple[int, ...], np.dtype]"  # shape and type of one of a node's arrays
Value = TypeVar("Value")


class Top(Protocol):
    """The upper part of one sum tree, for sums of one kind, again and again.

    Attributes:
        own: first and stop of this rank's leaves; equal where it has none.
    """

    own: tuple[int, int]

    def root(self, nodes: Callable[[], Mapping[int, Sequence[Array]]]) -> Sequence[Array]:
        """The arrays of the root, to be read before the next sum.

        Args:
            nodes: computes this rank's topmost nodes: their arrays by heap index (root 1, children 2i and 2i + 1).

        Raises:
            GpubpError: of `nodes`, or where that failed on another rank, what it raised there.
        """
        ...


class Communicator(Protocol):
    """What a training needs of the other processes.

    Attributes:
        rank, size: this process's number, and how many there are.
        hosts: the name of each rank's machine.
        wish: who asks this rank to stop, the name of a signal; "" for nobody. Set by whoever can be asked.
        link: what carries nodes from GPU to GPU, see `nccl`; None where there is none.
        kept: says from where the run can be gone on with, for messages; "" where nothing is kept. Set by whoever keeps.
    """

    rank: int
    size: int
    hosts: list[str]
    link: Any
    wish: Callable[[], str]
    kept: Callable[[], str]

    @property
    def local(self) -> tuple[int, int]:
        """Which of the ranks of its machine this one is, from 0, and how many those are."""
        ...

    def listen(self, wish: Callable[[], str]) -> None:
        """Work begins of which that says who asks to stop it; who asked for the end of what was before, and what of
        that is kept, is forgotten."""
        ...

    @property
    def asked(self) -> str:
        """Who asked to stop, as all ranks know since the same sum; "" for nobody."""
        ...

    def own(self, leaves: int) -> tuple[int, int]:
        """First and stop of this rank's part of so many leaves."""
        ...

    def top(self, leaves: int, node: Sequence[Part]) -> Top:
        """The upper part of a tree of so many leaves, whose nodes have these arrays."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Around work that each rank does by itself: an error on one is raised on all."""
        ...

    def alone(self, what: str) -> AbstractContextManager[None]:
        """Around what rank 0 does while the others wait for it, which may take as long as it takes: files, in general.

        Args:
            what: it is, for people: "writing a checkpoint".
        """
        ...

    def share(self, value: Value | None = None) -> Value:
        """What rank 0 gives, on all ranks."""
        ...

    def gather(self, value: Value) -> list[Value]:
        """What each rank gives, in their order, on all of them."""
        ...

    def collect(self, value: Value) -> list[Value]:
        """What each rank gives, in their order, on rank 0; nothing on the others."""
        ...

    def compare(self, Theta: Callable[[], np.ndarray]) -> None:
        """See that all ranks have the same Θ.

        Args:
            Theta: gives this rank's in NumPy's memory; asked for where there are others to compare with.

        Raises:
            CommunicatorError: they have not.
        """
        ...

    def agree(self, wishes: bool, seconds: float) -> tuple[bool, float]:
        """At the end of an iteration: whether any rank wishes to end the run, and the seconds of rank 0."""
        ...


class Whole:
    """The upper part of a tree all of whose leaves are here: nothing."""

    def __init__(self, leaves: int) -> None:
        self.own: tuple[int, int] = (0, leaves)

    def root(self, nodes: Callable[[], Mapping[int, Sequence[Array]]]) -> Sequence[Array]:
        return nodes()[1]


class Solo:
    """One process: rank 0 of 1."""

    rank = 0
    size = 1
    link = None

    def __init__(self) -> None:
        self.wish: Callable[[], str] = lambda: ""
        self.kept: Callable[[], str] = lambda: ""
        self.hosts = [os.uname().nodename]

    @property
    def local(self) -> tuple[int, int]:
        return 0, 1

    def listen(self, wish: Callable[[], str]) -> None:
        self.wish, self.kept = wish, lambda: ""

    @property
    def asked(self) -> str:
        return self.wish()

    def own(self, leaves: int) -> tuple[int, int]:
        return 0, leaves

    def top(self, leaves: int, node: Sequence[Part]) -> Top:
        return Whole(leaves)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def alone(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def share(self, value: Any = None) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def collect(self, value: Any) -> list[Any]:
        return [value]

    def compare(self, Theta: Callable[[], np.ndarray]) -> None:
        pass

    def agree(self, wishes: bool, seconds: float) -> tuple[bool, float]:
        return wishes, seconds


def current(watchdog: float | None = None) -> Communicator:
    """All processes that were started together with this one.

    Args:
        watchdog: how long a rank waits for the others, in seconds, from now on.

    Raises:
        CommunicatorError: there are several, and they cannot be reached; the message says why.
        GpubpError: another rank has given up before it came here, see `refuse`.
    """
    from . import launcher

    if launcher.size() == 1:
        return Solo()
    if not _made:
        from .mpi import MpiCommunicator

        _made.append(MpiCommunicator.world(watchdog, script=watchdog is None))
        _made[0].meet(None)
    elif watchdog is not None:
        _made[0].watchdog.seconds = watchdog
    return _made[0]


_made: list[Any] = []


def refuse(error: GpubpError) -> None:
    """Tell the others of an error that this rank met before it has met them; nothing is done where it has.

    Raises:
        GpubpError: the error as all ranks raise it.
    """
    if _made:
        return
    from .mpi import MpiCommunicator

    _made.append(MpiCommunicator.world())
    _made[0].meet(error)


def abort(code: int) -> None:
    """End all ranks at once with that exit code. Where they have not met, they do: none would wait for this one, and
    then for nobody. Comes back where they cannot."""
    from ..errors import CommunicatorError
    from .mpi import MpiCommunicator

    with suppress(CommunicatorError):
        if not _made:
            _made.append(MpiCommunicator.world())
        _made[0].abort(code)
