"""Ranks that MPI connects. mpi4py and the MPI library are imported here, where a launcher says that there are several.

Waits are asked for and looked after instead of blocking in the library: where ranks share cores, those that wait give
theirs away, and signals are seen.
"""

from __future__ import annotations

import atexit
import importlib
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from ..affinity import affinity
from ..errors import CommunicatorError
from . import launcher
from .library import Library
from .pulse import Pulse
from .ranks import Kind, Ranks
from .watchdog import MOMENT, MOST, STAGGER, Watchdog

SECONDS = 300.0  # of the watchdog
SPIN = 2e-3  # seconds that a rank looks without a pause whether the others are there
NAP, LONGEST = 5e-5, 1e-3  # seconds from then on, at least and at most
PART = 50  # of the time that was waited: so much of it may be lost by a nap
LONG = 1 << 16  # bytes that travel in pieces, each of which waits until somebody looks
HEARD = 0.2  # seconds in which what was said reaches the launcher, before all end
LAST = 2.0  # seconds in which MPI may end the job, before this process ends without it


class MpiCommunicator(Ranks):
    """All ranks of a communicator of mpi4py.

    Args:
        comm: a communicator of mpi4py, of which nobody else uses this copy.
        library: what was begun for it, if it was.

    Attributes:
        watchdog: ends the job where this rank waits too long.
    """

    def __init__(self, comm: Any, seconds: float = SECONDS, library: Library | None = None) -> None:
        self._mpi, self._comm, self._library = importlib.import_module("mpi4py.MPI"), comm, library
        rank, here = comm.Get_rank(), socket.gethostname()
        super().__init__(rank, comm.Get_size(), [here] * comm.Get_size())
        self._watched_leave = True
        self._spin = 0.0
        # a library that one thread alone may call: whoever waits for rank 0 then does so for the watchdog's time
        several = self._mpi.Query_thread() == self._mpi.THREAD_MULTIPLE
        self._pulse = Pulse(self._mpi, comm) if several else None
        self.watchdog = Watchdog(rank, seconds, self._give_up, self._pulse)
        self.hosts = names(self.gather((here, machine())))
        if self.local[1] <= len(affinity()):
            self._spin = SPIN

    @classmethod
    def world(cls, seconds: float | None = None, *, script: bool = False) -> MpiCommunicator:
        """All processes that the launcher has started.

        Args:
            seconds: of the watchdog; it also looks after MPI's own beginning, which waits for all of them.
            script: whether the processes are a user's own, who may have much to do on one of them before it ends.

        Raises:
            CommunicatorError: mpi4py or an MPI library is missing, or the library does not know the launcher.
        """
        started = launcher.found()
        assert started is not None
        count = launcher.size()
        seconds = SECONDS if seconds is None else seconds
        said = f"{started.name} has started {count} processes"
        try:
            importlib.import_module("mpi4py").rc(initialize=False, finalize=False)
            with warnings.catch_warnings():  # of another launcher's variables: that is said below
                warnings.simplefilter("ignore", RuntimeWarning)
                mpi = importlib.import_module("mpi4py.MPI")
            library = Library(mpi)
            with _met(f"{said}, and not all of them came within {seconds:.0f} s", seconds):
                library.begin()
                comm = mpi.COMM_WORLD.Dup()
        except (ImportError, RuntimeError) as error:
            missing = isinstance(error, ModuleNotFoundError)
            why = "mpi4py is not installed" if missing else " ".join(str(error).split())
            raise CommunicatorError(f"{said}, and {why}", do="pip install 'gpubp[mpi]'") from None
        if comm.Get_size() != count:
            version = mpi.Get_library_version().split("\0")[0].splitlines()[0]
            raise CommunicatorError(
                f"{said}, and MPI knows of {comm.Get_size()} ({' '.join(version.split())})",
                wanted="a launcher of the same MPI",
                do="start it with that MPI's own mpiexec, or with srun --mpi=pmi2 or --mpi=pmix",
            )
        made = cls(comm, seconds, library)
        made._watched_leave = not script
        atexit.register(made.leave)
        before = sys.excepthook

        def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
            before(kind, error, trace)
            if not getattr(error, "agreed", False):  # the others would wait for ever
                made.abort(1)

        sys.excepthook = hook
        return made

    def leave(self) -> None:
        """What is done at exit: all ranks take leave of each other. Those of a script wait for as long as another one
        has something else to do."""
        if self._library is None:
            return
        try:
            # what waits for long ends here, where all can still be ended
            self._arrive(Kind.LEAVE, watched=self._watched_leave)
            self._hear_all()
        except CommunicatorError as error:
            with suppress(OSError):
                os.write(2, f"gpubp: error: {error}\n".encode())
            self.abort(error.exit_code)
        except KeyboardInterrupt:
            self.abort(130)
        with self.watchdog.waiting():
            self._library.end()

    def all_gather(self, send: np.ndarray, out: np.ndarray, counts: Sequence[int]) -> None:
        long = len(out) >= LONG
        if long:
            self._arrive(Kind.LONG)
        self._wait(self._comm.Iallgatherv([send, self._mpi.BYTE], [out, counts, self._mpi.BYTE]), naps=not long)

    def all_to_all(self, send: np.ndarray, counts: Sequence[int], out: np.ndarray, out_counts: Sequence[int]) -> None:
        byte = self._mpi.BYTE
        self._arrive(Kind.LONG)
        self._wait(self._comm.Ialltoallv([send, counts, byte], [out, out_counts, byte]), naps=False)

    def share(self, value: Any = None) -> Any:
        self._arrive(Kind.SHARE)
        with self._waiting():
            return self._comm.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        self._arrive(Kind.GATHER)
        with self._waiting():
            return self._comm.allgather(value)

    def waiting(self) -> AbstractContextManager[None]:
        return self.watchdog.waiting()

    def alone(self, what: str) -> AbstractContextManager[None]:
        return self.watchdog.alone(what) if self.rank == 0 else nullcontext()

    def collect(self, value: Any) -> list[Any]:
        self._arrive(Kind.COLLECT)
        with self._waiting():
            return self._comm.gather(value) or []

    def abort(self, code: int) -> None:
        """End all ranks at once, this one with them, with that exit code. Does not return."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        with suppress(OSError):  # what happened is said by us; the library would say it once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        timer = threading.Timer(LAST, os._exit, (code,))
        timer.daemon = True
        timer.start()
        time.sleep(HEARD)
        (self._library or Library(self._mpi)).abort(code)
        os._exit(code)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Around what the library does with the others."""
        with self.watchdog.waiting():
            try:
                yield
            except self._mpi.Exception as error:
                raise CommunicatorError(f"MPI: {' '.join(str(error).split())}", do=self._what_is_kept()) from error

    def _hear_all(self) -> None:
        """Take the signs of life that are still on their way: nothing must be when MPI ends."""
        if self._pulse is None:
            return
        if self.rank == 0:
            self._pulse.close()
        with self._waiting():
            sent = self._comm.bcast(self._pulse.count)
            while self._pulse.count < sent and not self._pulse.closed:
                time.sleep(NAP)
                self._pulse.heard()
        self._pulse.close()

    def _arrive(self, kind: Kind, *, watched: bool = True) -> None:
        """Wait until all are here, giving way to those that still work, and see that all want the same."""
        header = self._header(None, kind)
        said = np.empty((self.size, len(header)), np.int64)
        counts, byte = [header.nbytes] * self.size, self._mpi.BYTE
        self._wait(self._comm.Iallgatherv([header, byte], [said, counts, byte]), watched=watched)
        self._heard(said, None)

    def _wait(self, request: Any, *, naps: bool = True, watched: bool = True) -> None:
        with self._waiting() if watched else nullcontext():
            began = time.perf_counter()
            while not request.Test():
                waited = time.perf_counter() - began
                if not naps:  # all are there: what is left is the way
                    os.sched_yield()
                elif waited >= self._spin:
                    time.sleep(min(LONGEST, max(NAP, waited / PART)))

    def _what_is_kept(self) -> str:
        """`kept`, of a disk that may be gone or answer never."""
        found = [""]

        def ask() -> None:
            with suppress(Exception):
                found.append(self.kept())

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(MOMENT)
        return found[-1]

    def _give_up(self, waited: float) -> None:
        kept = self._what_is_kept()
        line = (
            f"gpubp: error: {self.name(self.rank)} has waited {waited:.0f} s for the other ranks; "
            "one of them hangs, is gone or cannot be reached" + (f"; {kept}" if kept else "") + "\n"
        )
        with suppress(OSError):
            os.write(2, line.encode())
        self.abort(CommunicatorError.exit_code)


def machine() -> str:
    """What tells this machine from another of the same name; "" where the system does not say."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""


def names(found: Sequence[tuple[str, str]]) -> list[str]:
    """A name for the machine of each rank, out of what they call themselves and what `machine` says."""
    alike = {name: sorted({mark for one, mark in found if one == name}) for name, _ in found}
    return [name if len(alike[name]) == 1 else f"{name} ({alike[name].index(mark) + 1})" for name, mark in found]


@contextmanager
def _met(line: str, seconds: float) -> Iterator[None]:
    """Inside, this process waits for others that may never come: then it says that line and ends."""

    def end() -> None:
        with suppress(OSError):
            os.write(2, f"gpubp: error: {line}\n".encode())
        time.sleep(HEARD)
        with suppress(OSError, KeyError, ValueError):
            # what MPI_Abort would say, but that one is not there yet: without it MPICH's mpiexec waits for a lost host
            os.write(int(os.environ["PMI_FD"]), f"cmd=abort exitcode={CommunicatorError.exit_code}\n".encode())
            time.sleep(LAST)  # it ends us
        os._exit(CommunicatorError.exit_code)

    late = threading.Timer(seconds + STAGGER * min(launcher.rank(), MOST), end)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
