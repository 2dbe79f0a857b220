"""The BLAS that NumPy uses: which it is, and how many threads it takes.

Parallelism is ours: threads own leaves and each calls a BLAS that works alone. With two threads of its own every BLAS
and LAPACK routine was seen to change bits between runs. The thread count of a BLAS is global to the process, so it is
set when the first pass begins and restored when the last one that runs ends.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

# (part of the file's name, its title, symbols that set, get and describe; the first pair found is used)
_KNOWN = (
    ("openblas", "OpenBLAS", "openblas_set_num_threads", "openblas_get_num_threads", "openblas_get_corename"),
    ("mkl_rt", "MKL", "MKL_Set_Num_Threads", "MKL_Get_Max_Threads", ""),
    ("blis", "BLIS", "bli_thread_set_num_threads", "bli_thread_get_num_threads", ""),
)


@dataclass(frozen=True)
class Blas:
    """One BLAS library that this process has loaded."""

    title: str
    path: str
    kernel: str
    library: ctypes.CDLL
    set_name: str
    get_name: str

    def threads(self) -> int:
        """How many threads it uses now."""
        return int(getattr(self.library, self.get_name)())

    def set_threads(self, count: int) -> None:
        """How many threads it is to use, in the whole process."""
        getattr(self.library, self.set_name)(ctypes.c_int(count))


@cache
def loaded() -> tuple[Blas, ...]:
    """The BLAS libraries in this process whose threads can be set. Linux: read from the process's own map."""
    import numpy  # noqa: F401  brings its BLAS in

    try:
        with open("/proc/self/maps") as maps:
            paths = sorted({line.split(None, 5)[5].strip() for line in maps if ".so" in line})
    except OSError:
        return ()
    found = []
    for path in paths:
        name = path.rsplit("/", 1)[-1].lower()
        for part, title, setter, getter, describe in _KNOWN:
            if part in name:
                library = ctypes.CDLL(path)
                if (setting := _symbol(library, setter)) and (getting := _symbol(library, getter)):
                    found.append(Blas(title, path, _text(library, describe), library, setting, getting))
                break
    return tuple(found)


def describe() -> str:
    """The BLAS and its kernel for this CPU in a few words."""
    return ", ".join(f"{b.title} {b.kernel}".strip() for b in loaded()) or "unknown BLAS"


_lock = threading.Lock()
_inside = 0
_before: list[int] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, every BLAS works with one thread; may be nested and entered by several threads."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = [blas.threads() for blas in loaded()]
            for blas in loaded():
                blas.set_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for blas, threads in zip(loaded(), _before, strict=True):
                    blas.set_threads(threads)


def _symbol(library: ctypes.CDLL, name: str) -> str:
    """The name under which the library exports a function: wheels of NumPy and SciPy add a prefix and a suffix."""
    for candidate in (name, f"{name}64_", f"scipy_{name}", f"scipy_{name}64_"):
        if hasattr(library, candidate):
            return candidate
    return ""


def _text(library: ctypes.CDLL, name: str) -> str:
    symbol = _symbol(library, name) if name else ""
    if not symbol:
        return ""
    function = getattr(library, symbol)
    function.restype = ctypes.c_char_p
    return (function() or b"").decode()
