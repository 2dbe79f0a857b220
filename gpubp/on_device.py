"""An evaluation whose Θ lives on the device: queued there as a whole, and read when somebody asks for a number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from .backend import Backend
from .backend.cuda import across
from .communicator import Communicator, Top
from .data.rows import Rows
from .errors import BackendError, OutOfMemory
from .feed import Feed
from .network import Network
from .precision import Precision

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class OnDevice:
    """J and ∇J of float64 vectors in the device's memory, or of NumPy's, which then travel.

    Where the device's memory does not suffice, half of the rows that stay there are given up, as often as it takes:
    they are sent in each pass then, and the bits stay the same. With other processes that is done around this one's own
    part alone: what they do together they do once.

    Args:
        network, rows, lambda_, backend, communicator: see `gpubp.objective.Objective`.
        precision: of the pass.
        leaves, block_rows: override the engine's choice.

    Attributes:
        vectors: the space in which Θ and ∇J are best kept.
        kernel: "fused" or "layered".
        leaves, block_rows: what was taken.
    """

    threads = 1

    def __init__(
        self, network: Network, rows: Rows, lambda_: float, backend: Backend, precision: Precision,
        communicator: Communicator, leaves: int | None, block_rows: int | None,
    ) -> None:  # fmt: skip
        self._backend, self._held = backend, rows.validation is not None
        self._engine: Any = None
        self._failed = False  # the device; it was said, and closing need not say it again

        def make() -> Any:
            plan = {"leaves": leaves, "block_rows": block_rows, "own": communicator.own}
            answer = self.vectors.results[self._answer : self._answer + 2]
            return backend.engine(network, self._feed, lambda_, precision, answer, **plan)

        self._make = make
        with backend.guard():
            self._feed = Feed(backend, rows, network.K, precision.dtype, products=precision.products)
            self.vectors = backend.vectors()
            self._answer = self.vectors.keep()
        real = np.dtype(np.float64)
        # by whether a pass is to give the gradient; nothing where there are no others
        self._tops: dict[bool, Top] = {}

        def room() -> list[Any]:
            if communicator.size > 1:
                node = self._engine.node
                device: Any = backend
                tops = [across.top(device, communicator, self._engine.leaves, one) for one in (node[1:], node)]
                self._tops = dict(zip((False, True), tops, strict=True))
            return [backend.empty((network.P,), real) for _ in range(2)]

        try:
            self._own = self._with_room(room)
        except BaseException:
            self.vectors.give_back(self._answer)
            raise
        self.kernel, self._how = self._engine.kernel, self._engine.how
        self.leaves, self.block_rows = self._engine.leaves, self._engine.block_rows

    @property
    def feed(self) -> Feed:
        """What brings the rows."""
        return self._feed

    @property
    def resident_rows(self) -> int:
        """How many of the rows stay on the device."""
        return self._feed.resident_rows

    def evaluate(self, Theta: Any, gradient: Any) -> tuple[Any, Any]:
        """Queue one pass: J, and the cost of the validation rows or None; ∇J goes to `gradient` unless that is None."""
        if self._tops:
            return self._with_others(Theta, gradient)
        with self._feed.rows.unchanged():  # all are read in here, also where what they give is still to come
            if type(Theta) is np.ndarray:
                return self._of_host(Theta, gradient)
            return self._with_room(lambda: self._queue(Theta, gradient))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """The backend's, and it is remembered whether the device has failed."""
        try:
            with self._backend.guard():
                yield
        except OutOfMemory:
            raise
        except BackendError:
            self._failed = True
            raise

    @property
    def can_make_room(self) -> bool:
        """Whether there are rows on the device to give up, and what found it full may be done again: not where others
        do the same, for they would be a step ahead."""
        return self._feed.can_halve and not self._tops

    def make_room(self, why: str) -> None:
        """Give up half of the rows that stay on the device."""
        with self.guard():
            if self._engine is not None:
                self._engine.close()
                self._engine = None
            self._feed.halve()
        log.warning("%s; %s rows stay there, the others are sent in each pass", why, f"{self.resident_rows:,}")

    def conditions(self) -> dict[str, str]:
        """What the bits depend on besides the backend's own conditions."""
        return {"kernel": self._how}

    def close(self) -> None:
        """End its threads, let go of the rows and buffers.

        Raises:
            BackendError: the device fails, and did not before: an error on the way out must not hide the one that it
                follows from.
        """
        engine, feed, *_ = (vars(self).pop(name, None) for name in ("_engine", "_feed", "_own", "_tops"))
        try:
            if engine is not None:
                with self._backend.guard():
                    engine.close()
        except BackendError:
            if not self._failed:
                raise
        finally:
            if feed is not None:  # not closed before; the engine may have made room
                self.vectors.give_back(self._answer)

    def _with_others(self, Theta: Any, gradient: Any) -> tuple[Any, Any]:
        """One pass of which others have parts."""
        host = type(Theta) is np.ndarray
        there, slopes = (self._own[0], self._own[1] if gradient is not None else None) if host else (Theta, gradient)

        def nodes() -> dict[int, tuple[Any, ...]]:
            with self._feed.rows.unchanged():
                found = self._with_room(lambda: self._engine.nodes(there, gradient is not None))
            return {index: node if gradient is not None else node[1:] for index, node in found.items()}

        with self.guard():
            if host:
                self.vectors.put(Theta, there)
            *flat, cost = self._tops[gradient is not None].root(nodes)
            self._engine.finish(there, slopes, flat[0] if flat else None, cost)
            J, held = self._answered()
            if not host:
                return J, held
            if gradient is not None:
                gradient[...] = self._backend.to_host(slopes)
            return float(J), None if held is None else float(held)

    def _queue(self, Theta: Any, gradient: Any) -> tuple[Any, Any]:
        self._engine.queue(Theta, gradient)
        return self._answered()

    def _answered(self) -> tuple[Any, Any]:
        """J and the validation cost of the pass that was queued last."""
        answer = self.vectors.latest(self._answer)
        return answer[0], answer[1] if self._held else None

    def _of_host(self, Theta: np.ndarray, gradient: np.ndarray | None) -> tuple[float, float | None]:
        def work() -> tuple[float, float | None]:
            own, own_gradient = self._own
            self.vectors.put(Theta, own)
            J, held = self._queue(own, None if gradient is None else own_gradient)
            if gradient is not None:
                gradient[...] = self._backend.to_host(own_gradient)
            return float(J), None if held is None else float(held)

        return self._with_room(work)

    def _with_room(self, work: Callable[[], Result]) -> Result:
        """``work()``, in a smaller and smaller part of the device's memory until there is room for it."""
        while True:
            try:
                with self.guard():
                    if self._engine is None:
                        self._engine = self._make()
                    return work()
            except OutOfMemory as error:
                if not self._feed.can_halve:
                    raise
                full = str(error)
            self.make_room(full)
