"""How memory is shared between what an optimizer remembers and the rows."""

from __future__ import annotations

import logging

from .backend import Backend
from .communicator import Communicator, Solo
from .optimizers import Optimizer
from .optimizers.footprint import footprint, shares

log = logging.getLogger("gpubp")

SHARE = 4  # an optimizer's memory may take one part in so many
LEAST = 16_000_000  # bytes that it may always have: to save those is not worth a longer run


def allot(
    optimizer: Optimizer,
    P: int,
    budget: int,
    backend: Backend,
    *,
    fresh: bool,
    ranks: Communicator | None = None,
) -> tuple[Optimizer, int, dict[str, str]]:
    """The optimizer with its memory in a quarter of the budget, or of what a device has free.

    Several processes share a long history (`optimizers.parted`), so together they may remember more than one alone. A
    history that had to be shortened is said, and kept by whoever goes on: the bits of a run depend on it.

    Args:
        P: the number of parameters.
        budget: bytes of the host's memory for rows and optimizer.
        fresh: whether the run begins. One that goes on keeps what it began with, since its bits depend on it.
        ranks: all processes; the one that has the least decides for all.

    Returns:
        The optimizer, the bytes of the budget that its vectors take, and what is to be said of it.
    """
    ranks = ranks or Solo()
    room, of = (backend.free_memory(), "GPU's free memory") if backend.has_engine else (budget, "memory budget")
    said = ""
    if fresh and room is not None:
        room = min(ranks.gather(room))
        most = max(room // SHARE, LEAST)
        optimizer, said = optimizer.within(P, most if backend.has_engine else int(most * shares(P, ranks)))
        if said:
            each = " on each rank" if ranks.size > 1 else ""
            said += f", to fit {most / 1e6:,.0f} MB{each}" + (f", a quarter of the {of}" if most > LEAST else "")
            log.warning("%s", said)
    more = 8 * P  # the Θ that steps are measured from
    taken = 0 if backend.has_engine else footprint(optimizer, P, ranks) + more
    return optimizer, taken, {"memory": said} if said else {}
