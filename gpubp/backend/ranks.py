"""Which GPU each of several ranks takes, and how sums go from one to the other."""

from __future__ import annotations

import importlib
import logging
from typing import Any, cast

import numpy as np

from ..communicator import Communicator
from ..communicator.ranks import agreed
from ..errors import BackendError, CommunicatorError
from ..precision import on
from .protocol import Backend

log = logging.getLogger("gpubp")


def local_device(communicator: Communicator, first: int = 0) -> int:
    """The number of this rank's GPU, for `choose`: ranks of a host take those that a process sees there one after the
    other, from `first` on. Where the ranks are more, they share them."""
    if communicator.size == 1:
        return first
    seen = _seen()
    return (first + communicator.local[0]) % seen if seen else first


def connect(communicator: Communicator, backend: Backend) -> str:
    """Find how sums are to go between the GPUs of all ranks. All call it together, before the first objective.

    Returns:
        It in words, for the choices of a run; "" for one process, and for ranks on CPUs.

    Raises:
        CommunicatorError: some ranks compute on a GPU and others do not; NCCL cannot begin.
    """
    if communicator.size == 1:
        return ""
    ranks = communicator
    gpu: Any = backend if backend.has_engine else None
    with ranks.together():
        about = _about(gpu)
    said = [(host, *one) for host, one in zip(ranks.hosts, ranks.gather(about), strict=True)]
    kinds = [one[1] != "" for one in said]
    if any(kinds) and not all(kinds):
        other, host = kinds.index(False), said[kinds.index(False)][0]
        error = f"rank {other} on {host} computes on the CPU, and rank {kinds.index(True)} on a GPU"
        raise agreed(CommunicatorError(error, wanted="one kind for all", do="say which with --backend"))
    if gpu is None:
        return ""
    places = [one[:2] for one in said]
    gpu.sharers = places.count(places[ranks.rank])
    shared = next((place for place in places if places.count(place) > 1), None)
    missing = next((f"rank {r} on {one[0]}: {one[2]}" for r, one in enumerate(said) if one[2]), "")
    if shared is not None:
        why = f"{places.count(shared)} ranks share GPU {shared[1]} of {shared[0]}"
    elif missing:
        why = f"there is no NCCL ({missing})"
    else:
        from ..communicator.nccl import NcclCommunicator

        with gpu.guard():
            ranks.link = NcclCommunicator(ranks, gpu.nccl(), gpu.stream.ptr)
        return "sums go from GPU to GPU by NCCL"
    ranks.link = None
    how = f"sums go through the host's memory, since {why}"
    if ranks.rank == 0:
        log.warning("%s; bits are the same, the way is longer", how)
    return how


def leaves_of(
    backend: Backend, network: Any, m: int, precision: str, *, stored: np.dtype, labels: np.ndarray, weighted: bool
) -> int:
    """How many leaves the sum of an objective will have, before there is one: to know which rows a rank is to keep.

    Args:
        network: a `gpubp.network.Network`.
        stored, labels: the type of the rows; codes or targets.
        weighted: whether rows will have weights, or some are for validation.
    """
    leaves, _ = backend.leaves_and_block(m, network.sizes)
    products = on(backend, precision).products
    if not backend.has_engine or products == "exact" or backend.choice.get("kernel") == "layered":
        return leaves
    from .cuda.fused import Task, plan
    from .cuda.fused_pass import fused_leaves

    codes = labels.ndim == 1
    task = Task.of(network, products, stored=stored, labels=labels.dtype, one_hot=codes, weighted=weighted)
    try:
        plan(task, cast(Any, backend).shared_memory)
    except BackendError:
        return leaves
    return fused_leaves(m)


def _seen() -> int:
    """How many GPUs this process sees; 0 where none works."""
    try:
        return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    except Exception:  # `gpu_status` says why
        return 0


def _about(gpu: Any) -> tuple[str, str]:
    """Where a GPU is on its host, "" for none; and why it cannot use NCCL, "" where it can."""
    if gpu is None:
        return "", ""
    try:
        return (
            gpu.place,
            "" if gpu.nccl().available else "pip install nvidia-nccl-cu13, or for CUDA 12 nvidia-nccl-cu12",
        )
    except (ImportError, RuntimeError) as error:
        return gpu.place, " ".join(str(error).split())
