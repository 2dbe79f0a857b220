"""Work that is queued again and again: once call by call, from then on as CUDA graphs.

A graph costs one launch, however many kernels and products it holds, so the device has no gaps between them. Everything
in it is fixed: arrays, sizes, order. Work on rows that are sent belongs to a graph of its own for each piece, because
it must not begin before the piece has arrived; a piece comes to the same place in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .conveyor import Conveyor
from .device import Device


class Step(NamedTuple):
    """Something to queue, and the piece of rows it uses, if any."""

    queue: Callable[[], None]
    piece: int | None = None


class Recorded:
    """Steps as few graphs.

    Args:
        steps: always the same ones; pieces in the conveyor's order.
        conveyor: brings the pieces.
        capture: whether to make graphs at all.
    """

    def __init__(
        self, device: Device, steps: Iterable[Step], conveyor: Conveyor | None = None, *, capture: bool = True
    ) -> None:
        self._device, self._conveyor, self._capture = device, conveyor, capture
        self._groups: list[tuple[bool, list[Callable[[], None]]]] = []
        for step in steps:  # a group is the work on a piece and what follows up to the next one
            if step.piece is not None or not self._groups:
                self._groups.append((step.piece is not None, []))
            self._groups[-1][1].append(step.queue)
        self._graphs: list[Callable[[], None]] = []
        self._built = False

    def __call__(self) -> None:
        """Queue all steps."""
        if self._conveyor:
            self._conveyor.begin()
        if not self._built:  # whatever is built or loaded at its first use must not be met while a graph is made
            for sent, work in self._groups:
                self._one(sent, lambda work=work: _all(work))
            self._built = True
            return
        if not self._graphs:
            wrap = self._device.capture if self._capture else lambda queue: queue
            self._graphs = [wrap(lambda work=work: _all(work)) for _, work in self._groups]
        for (sent, _), graph in zip(self._groups, self._graphs, strict=True):
            self._one(sent, graph)

    def _one(self, sent: bool, queue: Callable[[], None]) -> None:
        if not sent:
            queue()
            return
        assert self._conveyor
        self._conveyor.take()
        queue()
        self._conveyor.release()


def _all(work: list[Callable[[], None]]) -> None:
    for queue in work:
        queue()
