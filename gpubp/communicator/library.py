"""The MPI library's beginning and end, called so that other threads go on meanwhile.

mpi4py keeps Python's lock in the three calls that wait for all ranks or end them: where one of these never comes, no
thread of ours could say so. ctypes gives the lock away. The functions are the ones that mpi4py is linked to.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any


class Library:
    """The library behind `mpi4py.MPI`.

    Args:
        mpi: that module, imported without having begun.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi, self._begun = mpi, False
        self._c: Any = None  # where mpi4py is not linked to it but opens it by itself: then as mpi4py calls it
        with suppress(OSError):
            found = ctypes.CDLL(mpi.__file__)
            if all(hasattr(found, f"MPI_{name}") for name in ("Init_thread", "Finalize", "Abort")):
                self._c = found

    def begin(self) -> None:
        """Wait for all ranks, unless somebody else has done so.

        Raises:
            RuntimeError: the library says that it cannot begin.
        """
        mpi = self._mpi
        if mpi.Is_initialized():
            return
        if self._c is None:
            mpi.Init_thread()
        else:
            given = ctypes.c_int()
            if code := self._c.MPI_Init_thread(None, None, ctypes.c_int(mpi.THREAD_MULTIPLE), ctypes.byref(given)):
                raise RuntimeError(f"MPI_Init gives the error {code}")
        mpi.COMM_WORLD.Set_errhandler(mpi.ERRORS_RETURN)  # mpi4py raises them
        self._begun = True

    def end(self) -> None:
        """Take leave of all ranks, where `begin` has met them."""
        if self._begun and not self._mpi.Is_finalized():
            _ = self._mpi.Finalize() if self._c is None else self._c.MPI_Finalize()

    def abort(self, code: int) -> None:
        """End all ranks at once with that exit code."""
        mpi = self._mpi
        if self._c is None:
            mpi.COMM_WORLD.Abort(code)
            return
        handle = ctypes.c_void_p if mpi._sizeof(mpi.Comm) == ctypes.sizeof(ctypes.c_void_p) else ctypes.c_int
        self._c.MPI_Abort(handle(mpi._handleof(mpi.COMM_WORLD)), ctypes.c_int(code))
