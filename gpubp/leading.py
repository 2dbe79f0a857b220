"""Rank 0 decides what is to be done, the others do it with it: a run folder is seen and written by one rank alone.

Between two words the others prepare data and train, and whatever goes wrong there is met by all (`Communicator`). While
they wait for a word, an error of rank 0 is the word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .communicator import Communicator
from .communicator.ranks import told
from .errors import GpubpError
from .gathering import without
from .inference import Model
from .job import Job
from .prepare import Prepared


@dataclass(frozen=True)
class Order:
    """A training to be prepared.

    Attributes:
        job: what was asked for.
        kept: of `prepare`, what a run that goes on has found before.
        resumed: the checkpoint to go on from.
        initial: the Θ to begin from, where it is not drawn.
        apart: the shapes of matrices of the checkpoint's state that the others are sent by rows.
    """

    job: Job
    kept: dict[str, Any] = field(default_factory=dict)
    resumed: Checkpoint | None = None
    initial: np.ndarray | Sequence[np.ndarray] | None = None
    apart: dict[str, tuple[int, int]] = field(default_factory=dict)

    def for_others(self) -> Order:
        """The order as ranks other than 0 get it."""
        return replace(self, resumed=without(self.resumed, self.apart)) if self.resumed and self.apart else self


@dataclass(frozen=True)
class Refused:
    """Nothing is to be done, and why not."""

    kind: type[GpubpError]
    found: str
    wanted: str
    do: str


Word = Order | Model | Refused | bool


class Lead:
    """Rank 0 with the others waiting for its word; use as a context manager."""

    def __init__(self, ranks: Communicator) -> None:
        self._ranks, self._awaited = ranks, False
        self._alone = ExitStack()
        self.prepared()

    def tell(self, word: Word) -> None:
        """An `Order`, then whether it holds (or else another one); or the model where there is nothing to do."""
        self._alone.close()
        self._ranks.share(word.for_others() if isinstance(word, Order) else word)
        self._awaited = False

    def prepared(self) -> None:
        """The order is carried out so far that the others wait for the next word."""
        self._alone.enter_context(self._ranks.alone("looking at the run folder"))
        self._awaited = True

    def trained(self, model: Model) -> Model:
        """The model; the others have nothing more to do, and wait to leave together."""
        self._alone.enter_context(self._ranks.alone("closing the run folder"))
        return model

    def __enter__(self) -> Lead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._awaited and isinstance(error, Exception) and not getattr(error, "agreed", False):
            self.tell(Refused(*told(error)))
            if isinstance(error, GpubpError):  # of another one Python's account is still to be given
                error.agreed = True
        self._alone.close()


def follow(
    ranks: Communicator,
    prepare: Callable[[Order], Any],
    train: Callable[[Prepared, Order], Model],
) -> Model:
    """What every other rank does: prepare what rank 0 orders, and train where that holds.

    Args:
        prepare: gives a context manager with what `train` takes.

    Raises:
        GpubpError: rank 0 has refused, or any rank has failed.
    """
    while True:
        order = _word(ranks)
        if isinstance(order, Model):
            return order
        assert isinstance(order, Order)
        with prepare(order) as ready:
            if _word(ranks):
                return train(ready, order)


def _word(ranks: Communicator) -> Word:
    word: Word = ranks.share()
    if isinstance(word, Refused):
        error = word.kind(word.found, wanted=word.wanted, do=word.do)
        error.agreed = True
        raise error
    return word
