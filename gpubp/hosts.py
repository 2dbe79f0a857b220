"""What ranks on one machine share, its cores and its memory, and what all machines of a training must have alike."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from .backend.cores import available_cores
from .communicator import Communicator
from .communicator.top import own_leaves
from .data.memory import default_budget
from .data.source import RowSource
from .errors import CommunicatorError, DataError


def cores(ranks: Communicator) -> int | None:
    """How many cores are this rank's own: all that it may use, shared with the ranks that may use them too; None where
    there is one rank."""
    if ranks.size == 1:
        return None
    try:
        mine = frozenset(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        mine = frozenset(range(os.cpu_count() or 1))
    here = ranks.hosts[ranks.rank]
    sharing = sum(
        host == here and bool(mine & theirs) for host, theirs in zip(ranks.hosts, ranks.gather(mine), strict=True)
    )
    return max(1, available_cores() // sharing)


def memory(ranks: Communicator) -> int:
    """Bytes of this rank's rows unless the user says otherwise: its share of half of what is free."""
    return default_budget() // ranks.local[1]


def refuse_other_rows(ranks: Communicator, source: RowSource, labels: np.ndarray, weights: np.ndarray | None) -> None:
    """See that every rank has opened the same data: as many rows of the same kind, the same labels and weights.

    Raises:
        DataError: which rank has others than rank 0.
    """
    if ranks.size == 1:
        return
    digest = hashlib.blake2b(digest_size=16)
    for array in (labels, weights):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).view(np.uint8).data)
    shape = f"{source.m:,} rows of {source.features} features ({source.dtype})"
    found = ranks.gather((shape, digest.hexdigest(), source.describe()))
    for rank, (other, content, named) in enumerate(found):
        if (other, content) == found[0][:2]:
            continue
        what = other if other != found[0][0] else "other labels or weights"
        raise DataError(
            f"{named} has {what} on rank {rank}",
            wanted=f"{found[0][0]}, the same on every machine",
            do="copy the file anew, or put it where all can read it",
        )


def refuse_other_machines(ranks: Communicator, conditions: Mapping[str, Any]) -> None:
    """See that all ranks compute the same bits: what these depend on is the same.

    Raises:
        CommunicatorError: which rank differs from rank 0, and in what.
    """
    found = ranks.gather(dict(conditions))
    for rank, theirs in enumerate(found):
        differ = [f"{name} is {theirs.get(name)}, on rank 0 {value}" for name, value in found[0].items()
                  if theirs.get(name) != value]  # fmt: skip
        if differ:
            raise CommunicatorError(
                f"rank {rank} would compute other bits: {'; '.join(differ)}",
                wanted="machines of one kind",
                do="choose such, or set OPENBLAS_CORETYPE and --kernel numpy to what all of them have",
            )


def describe(ranks: Communicator, leaves: int) -> dict[str, str]:
    """The ranks in words, among the choices of a run; nothing where there is one."""
    if ranks.size == 1:
        return {}
    on = ", ".join(f"{count} on {host}" for host, count in Counter(ranks.hosts).items())
    owned = [stop - first for first, stop in (own_leaves(rank, ranks.size, leaves) for rank in range(ranks.size))]
    few, many = min(owned), max(owned)
    text = f"{ranks.size} ({on}), {few if few == many else f'{few} to {many}'} of the {leaves} leaves of the sum each"
    if not few:
        idle = owned.count(0)
        text += f"; {idle} of them {'have' if idle > 1 else 'has'} nothing to do: take {leaves} or fewer"
    return {"ranks": text}
