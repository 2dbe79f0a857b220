"""What ranks on one machine share, its cores and its memory, and what all machines of a training must have alike."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from .affinity import affinity
from .backend.cores import available_cores
from .communicator import Communicator
from .communicator.ranks import agreed
from .communicator.top import own_leaves
from .counter_hash import hash_uniform
from .data.memory import default_budget
from .data.source import RowSource
from .errors import CommunicatorError, DataError

SAMPLE = 64  # rows of X that ranks compare before they begin: a tenth of other rows is missed once in a thousand times


def cores(ranks: Communicator) -> int | None:
    """How many cores are this rank's own: all that it may use, shared with the ranks that may use them too; None where
    there is one rank."""
    if ranks.size == 1:
        return None
    mine = affinity()
    here = ranks.hosts[ranks.rank]
    sharing = sum(
        host == here and bool(mine & theirs) for host, theirs in zip(ranks.hosts, ranks.gather(mine), strict=True)
    )
    return max(1, available_cores() // sharing)


def memory(ranks: Communicator) -> int:
    """Bytes of this rank's rows unless the user says otherwise: its share of half of what is free."""
    return default_budget() // ranks.local[1]


def refuse_other_rows(
    ranks: Communicator, source: RowSource, labels: np.ndarray | None, weights: np.ndarray | None
) -> None:
    """See that every rank has opened the same data: as many rows of the same kind, the same labels and weights, and the
    same X as far as `SAMPLE` rows tell.

    Raises:
        DataError: which rank has others than rank 0.
    """
    if ranks.size == 1:
        return
    with ranks.together():
        shape = f"{source.m:,} rows of {source.features} features ({source.dtype})"
        digest = hashlib.blake2b(digest_size=16)
        for array in (labels, weights):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).view(np.uint8).data)
        mine = shape, digest.hexdigest(), _sampled(source), source.describe()
    names = ("", "other labels or weights", "other rows")
    found = ranks.gather(mine)
    for rank, (*theirs, named) in enumerate(found):
        differ = [what or theirs[0] for one, other, what in zip(theirs, found[0], names, strict=False) if one != other]
        if differ:
            raise agreed(
                DataError(
                    f"{named} has {differ[0]} on rank {rank}",
                    wanted=f"{found[0][0]}, the same on every machine",
                    do="copy the file anew, or put it where all can read it",
                )
            )


def _sampled(source: RowSource) -> str:
    """A digest of rows from all over a source: the first, the last, and others drawn by their number."""
    drawn = (hash_uniform(0, "the same on every rank", np.arange(SAMPLE)) * source.m).astype(np.int64).tolist()
    row, digest = np.empty((1, source.features), source.dtype), hashlib.blake2b(digest_size=16)
    for at in sorted({0, source.m - 1, *drawn}):
        source.read(at, at + 1, row)
        digest.update(row.view(np.uint8).data)
    return digest.hexdigest()


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
            raise agreed(
                CommunicatorError(
                    f"rank {rank} would compute other bits: {'; '.join(differ)}",
                    wanted="machines of one kind",
                    do="choose such, or set OPENBLAS_CORETYPE and --kernel numpy to what all of them have",
                )
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
