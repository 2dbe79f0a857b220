"""What every communicator over several ranks does, however its bytes travel.

Whoever fails or is asked to stop must not leave the others waiting. So each exchange carries a few numbers of every
rank beside what it is about: an error there becomes an error here, and a wish to stop is known to all ranks after
the same sum, before any of them begins the next one. A rank that was stopped for good says nothing: `watchdog`.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import IntEnum
from typing import Any, NoReturn

import numpy as np

from ..errors import CommunicatorError, GpubpError, OtherRankFailed, Stopped
from . import Part
from .top import HEADER, RanksTop, own_leaves

# What a rank says: which exchange this is for it, whether it failed, who asks it to stop; its Θ, wish, seconds; of what
# kind the exchange is.
STEP, FAILED, ASKED, THETA, WISHES, SECONDS, KIND = range(7)

_ALIKE = "every rank must do the same work; if it was told to, this is a mistake in gpubp"


class Kind(IntEnum):
    """What an exchange is about. Where ranks are not of one mind, nothing else must be exchanged."""

    SUM_OR_WORD = 0
    LONG = 1
    SHARE = 2
    GATHER = 3
    COLLECT = 4
    LEAVE = 5


class Ranks(ABC):
    """A communicator. A subclass writes `all_gather` and `all_to_all` (see `top.Exchange`), `share`, `gather`
    and `collect`.

    Attributes:
        hosts: the name of each rank's machine.
        link: what carries nodes from GPU to GPU, see `nccl`; None where they go through the host's memory.
    """

    def __init__(self, rank: int, size: int, hosts: Sequence[str]) -> None:
        self.rank, self.size, self.hosts = rank, size, list(hosts)
        self.wish: Callable[[], str] = lambda: ""
        self.kept: Callable[[], str] = lambda: ""
        self.asked = ""
        self.link: Any = None
        self._step = 0

    @abstractmethod
    def all_gather(self, send: np.ndarray, out: np.ndarray, counts: Sequence[int]) -> None:
        """See `top.Exchange`."""

    @abstractmethod
    def all_to_all(self, send: np.ndarray, counts: Sequence[int], out: np.ndarray, out_counts: Sequence[int]) -> None:
        """See `top.Exchange`."""

    @abstractmethod
    def share(self, value: Any = None) -> Any:
        """What rank 0 gives, on all ranks."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """What each rank gives, in their order, on all of them."""

    @abstractmethod
    def collect(self, value: Any) -> list[Any]:
        """What each rank gives, in their order, on rank 0; nothing on the others."""

    @property
    def local(self) -> tuple[int, int]:
        mine = self.hosts[self.rank]
        return self.hosts[: self.rank].count(mine), self.hosts.count(mine)

    def listen(self, wish: Callable[[], str]) -> None:
        self.wish, self.kept, self.asked = wish, lambda: "", ""

    def waiting(self) -> AbstractContextManager[None]:
        """Around a wait for the others that is not one of the exchanges here."""
        return nullcontext()

    def alone(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def own(self, leaves: int) -> tuple[int, int]:
        return own_leaves(self.rank, self.size, leaves)

    def top(self, leaves: int, node: Sequence[Part]) -> RanksTop:
        return RanksTop(self, self.rank, self.size, leaves, node, header=self._header, heard=self._heard)

    @contextmanager
    def together(self) -> Iterator[None]:
        error: Exception | None = None
        try:
            yield
        except Exception as failed:
            if getattr(failed, "agreed", False):  # all know of it already
                raise
            error = failed
        self.meet(error)

    def meet(self, error: Exception | None) -> None:
        """See that nobody has met an error, or raise on all ranks the one that the first of them has."""
        self._said(self._header(error), error)

    def compare(self, Theta: Callable[[], np.ndarray]) -> None:
        header = self._header(None)
        header[THETA] = digest(Theta())
        said = self._said(header, None)[:, THETA]
        if (said != said[0]).any():
            other = int(np.argmax(said != said[0]))
            raise agreed(
                CommunicatorError(
                    f"{self.name(other)} has another Theta than {self.name(0)}",
                    wanted="the same bits everywhere",
                    do="one of the machines has another file, computes wrongly, or is of another kind",
                )
            )

    def agree(self, wishes: bool, seconds: float) -> tuple[bool, float]:
        header = self._header(None)
        header[WISHES] = wishes
        header[SECONDS : SECONDS + 1].view(np.float64)[0] = seconds
        said = self._said(header, None)
        return bool(said[:, WISHES].any()), float(said[0, SECONDS : SECONDS + 1].view(np.float64)[0])

    def name(self, rank: int) -> str:
        """A rank as messages call it."""
        return f"rank {rank} on {self.hosts[rank]}"

    def _header(self, error: BaseException | None, kind: Kind = Kind.SUM_OR_WORD) -> np.ndarray:
        header = np.zeros(HEADER // 8, np.int64)
        self._step += 1
        wish = self.wish()
        asked = signal.Signals[wish] if wish else 0
        header[[STEP, FAILED, ASKED, KIND]] = self._step, error is not None, asked, kind
        return header

    def _said(self, header: np.ndarray, error: BaseException | None) -> np.ndarray:
        """What all ranks say, (ranks, 8) int64, an error of theirs being raised."""
        out = np.empty((self.size, HEADER // 8), np.int64)
        self.all_gather(header.view(np.uint8), out.reshape(-1).view(np.uint8), [HEADER] * self.size)
        self._heard(out, error)
        return out

    def _heard(self, said: np.ndarray, error: BaseException | None) -> None:
        if (said[:, [STEP, KIND]] != said[0, [STEP, KIND]]).any():
            raise CommunicatorError(f"ranks out of step: {_different(said)}", do=_ALIKE)
        if asked := int(said[:, ASKED].max()):
            self.asked = signal.Signals(asked).name
        if said[:, FAILED].any():
            self._raise(error)

    def _raise(self, error: BaseException | None) -> NoReturn:
        """Raise on every rank what the first that failed has met."""
        met = self.gather(None if error is None else told(error))
        failed = [rank for rank, one in enumerate(met) if one is not None]
        first, (kind, found, wanted, do) = failed[0], met[failed[0]]
        alike = len(failed) == self.size and all(one == met[0] for one in met)
        if error is not None and not isinstance(error, GpubpError) and self.rank == first:
            raise agreed(error)  # Python's account of it, once
        where = "" if alike or kind is Stopped else f"{self.name(first)}: "
        raise agreed(kind(f"{where}{found}", wanted=wanted, do=do)) from error


def _different(said: np.ndarray) -> str:
    """How ranks are out of step."""
    leaves = said[:, KIND] == Kind.LEAVE
    if leaves.any() and not leaves.all():
        return f"rank {int(np.argmax(leaves))} has ended, and rank {int(np.argmin(leaves))} goes on"
    return "at exchange " + ", ".join(f"{row[STEP]} ({row[KIND]})" for row in said.tolist())


def digest(Theta: np.ndarray) -> int:
    """An int64 that two Θ, (P,) float64, have in common where they are the same bits, and else hardly ever; never where
    one number differs."""
    bits = np.ascontiguousarray(Theta).view(np.int64)
    with np.errstate(over="ignore"):  # sums modulo 2^64; one change has the factor 1 or 3, which is odd
        return int(np.add.reduce(bits) + 2 * np.add.reduce(bits[::3]))


def agreed(error: Any) -> Any:
    """The error, marked as one that all ranks have met: each ends by itself."""
    error.agreed = True
    return error


def told(error: BaseException) -> tuple[type[GpubpError], str, str, str]:
    """What is said of an error to those who have not met it: its kind, what was found and wanted, what to do."""
    if isinstance(error, GpubpError):
        return type(error), error.found, error.wanted, error.do
    if isinstance(error, MemoryError):
        do = "keep fewer rows in it with --memory, or take fewer ranks on a host"
        return OtherRankFailed, "out of memory", "", do
    return OtherRankFailed, f"failed by {type(error).__name__}: {' '.join(str(error).split())}", "", ""
