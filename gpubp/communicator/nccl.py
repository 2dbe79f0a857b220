"""NCCL beside a communicator of ranks: it carries nodes of the sum tree from GPU to GPU, and nothing else.

Who failed, who wishes to stop and whatever else is small goes by the communicator that the GPUs' processes have anyhow.
NCCL's own reductions are not used: they add in an order of their own. Bytes are all it is given.

`cupy.cuda.nccl` has the functions of NCCL's manual; the library is a package of its own, such as nvidia-nccl-cu13.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import CommunicatorError

SPIN = 2e-3  # seconds that a rank looks without a pause whether NCCL is done
NAP = 1e-4  # seconds from then on


class NcclCommunicator:
    """All ranks' GPUs, one of each rank.

    Args:
        communicator: the ranks; all make this together.
        nccl: the module `cupy.cuda.nccl`.
        stream: the address of the CUDA stream on which everything is queued; its device is the current one.

    Raises:
        CommunicatorError: NCCL cannot begin.
    """

    def __init__(self, communicator: Any, nccl: Any, stream: int) -> None:
        self._nccl, self._stream, self._waiting = nccl, stream, communicator.waiting
        with communicator.together(), self._said():
            identity = nccl.get_unique_id() if communicator.rank == 0 else None
        identity = communicator.share(identity)
        with communicator.together(), self._said(), self._waiting():
            self._comm = nccl.NcclCommunicator(communicator.size, identity, communicator.rank)

    def all_gather(self, arrays: Sequence[tuple[int, int, int]]) -> None:
        """Queue: everybody's bytes to everybody, in the order of the ranks; for each array the addresses from and to,
        and how many bytes a rank sends, all as many."""
        with self._group():
            for send, out, count in arrays:
                self._comm.allGather(send, out, count, self._nccl.NCCL_UINT8, self._stream)

    def exchange(self, sent: Sequence[tuple[int, int, int]], received: Sequence[tuple[int, int, int]]) -> None:
        """Queue: what goes to other ranks and comes from them, each as address, bytes and rank. Between two ranks
        messages are in order."""
        with self._group():
            for address, count, peer in sent:
                self._comm.send(address, count, self._nccl.NCCL_UINT8, peer, self._stream)
            for address, count, peer in received:
                self._comm.recv(address, count, self._nccl.NCCL_UINT8, peer, self._stream)

    def wait(self, done: Callable[[], bool]) -> None:
        """Until what was queued is done, as long as the ranks wait for each other.

        Raises:
            CommunicatorError: NCCL has found that another rank cannot be reached any more.
        """
        with self._waiting(), self._said():
            began = time.perf_counter()
            while not done():
                self._comm.check_async_error()
                if time.perf_counter() - began >= SPIN:
                    time.sleep(NAP)

    @contextmanager
    def _group(self) -> Iterator[None]:
        """Calls that NCCL takes as one: none of them waits for those behind it."""
        with self._said():
            self._nccl.groupStart()
            yield
            self._nccl.groupEnd()

    @contextmanager
    def _said(self) -> Iterator[None]:
        """NCCL's errors in our words."""
        try:
            yield
        except self._nccl.NcclError as error:
            raise CommunicatorError(
                f"NCCL failed: {' '.join(str(error).split())}",
                do="NCCL_DEBUG=WARN has it say why; go on with gpubp resume",
            ) from error
