"""The BLAS libraries there are: which they are, how many threads they take, where their matrix product lies.

Parallelism is ours: threads own leaves and each calls a BLAS that works alone. With two threads of its own every BLAS
and LAPACK routine was seen to change bits between runs. The thread count of a BLAS is global to the process, so it is
set when the first pass begins and restored when the last one that runs ends.

NumPy's own BLAS is always there. Compiled passes may take Intel's MKL instead, which `pip install mkl` brings and which
is faster on most x86 machines.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import BackendError, UsageError

# (part of the file's name, its title, symbols that set, get and describe; the first pair found is used)
_KNOWN = (
    ("openblas", "OpenBLAS", "openblas_set_num_threads", "openblas_get_num_threads", "openblas_get_corename"),
    ("mkl_rt", "MKL", "MKL_Set_Num_Threads", "MKL_Get_Max_Threads", ""),
    ("blis", "BLIS", "bli_thread_set_num_threads", "bli_thread_get_num_threads", ""),
)
# What MKL_CBWR_Get_Auto_Branch answers: the instructions its kernels use here. On AMD it does not tell: AUTO.
_MKL_BRANCHES = {
    2: "auto", 3: "compatible", 4: "SSE2", 6: "SSSE3", 7: "SSE4.1", 8: "SSE4.2", 9: "AVX", 10: "AVX2", 12: "AVX-512",
    14: "AVX-512 E1",
}  # fmt: skip
_MKL_SEQUENTIAL = 1  # of MKL_Set_Threading_Layer
_MKL_CBWR_AUTO = 2  # of MKL_CBWR_Set: the same bits in each run, wherever arrays begin


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

    def describe(self) -> str:
        """Its name and its kernel for this CPU."""
        return f"{self.title} {self.kernel}".strip()

    def gemm(self, dtype: np.dtype) -> tuple[int, bool] | None:
        """The address of cblas_sgemm or cblas_dgemm, and whether its integers have 64 bits; None without one."""
        name = {"f": "cblas_sgemm", "d": "cblas_dgemm"}[dtype.char]
        for symbol, wide in ((f"scipy_{name}64_", True), (f"{name}64_", True), (f"{name}_64", True), (name, False)):
            if hasattr(self.library, symbol):
                address = ctypes.cast(getattr(self.library, symbol), ctypes.c_void_p).value
                return (address, wide) if address else None
        return None


@cache
def loaded() -> tuple[Blas, ...]:
    """The BLAS libraries in this process whose threads can be set. Linux: read from the process's own map."""
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
                    kernel = _mkl_kernel(library) if title == "MKL" else _text(library, describe)
                    found.append(Blas(title, path, kernel, library, setting, getting))
                break
    return tuple(found)


@cache
def of_numpy() -> Blas | None:
    """The BLAS that NumPy was built with; None where it cannot be found (Apple's Accelerate, a plain reference one)."""
    home = Path(np.__file__).parent
    wheel = [blas for blas in loaded() if Path(blas.path).parent == home.with_name("numpy.libs")]
    return next(iter([*wheel, *loaded()]), None)


def find(name: str = "auto") -> Blas:
    """The BLAS for compiled passes.

    Args:
        name: "mkl", "numpy" (the one NumPy was built with), or "auto": MKL where it is installed, else NumPy's.

    Raises:
        UsageError: another name.
        BackendError: it is not there, or has no matrix product to be called from C.
    """
    if name not in ("auto", "mkl", "numpy"):
        raise UsageError(f"blas '{name}'", wanted="auto, mkl or numpy")
    if name == "mkl" or (name == "auto" and _mkl_path()):
        return _mkl()
    blas = of_numpy()
    if blas is None or blas.gemm(np.dtype(np.float32)) is None:
        found = "a BLAS of NumPy's without cblas_sgemm" if blas else "no OpenBLAS, MKL or BLIS under NumPy"
        do = "pip install mkl, or take --kernel numpy"
        raise BackendError(found, wanted="one that compiled code can call", do=do)
    return blas


def describe() -> str:
    """NumPy's BLAS and its kernel for this CPU in a few words."""
    own = of_numpy()
    return own.describe() if own else "unknown BLAS"


def conditions() -> dict[str, str]:
    """What the bits of NumPy's own sums, functions and LAPACK depend on: its version, the instructions that it chose
    for this CPU, its BLAS with the kernel for this CPU, and that one's version as far as it tells it."""
    own = of_numpy()
    version = _text(own.library, "openblas_get_config") if own else ""
    return {
        "numpy": np.__version__,
        "simd": _simd(),
        "lapack": " ".join([describe(), *(word for word in version.split() if word[:1].isdigit())]),
    }


def _simd() -> str:
    """The instructions, beyond those that every CPU here has, for which NumPy has loops of its own and which it uses:
    its exp and tanh are others with AVX-512. NPY_DISABLE_CPU_FEATURES changes them."""
    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # what numpy.show_runtime shows
    except ImportError:
        return "unknown"
    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name)) or "baseline"


def available() -> dict[str, str]:
    """The BLAS libraries that `find` knows here, by the name that takes them."""
    own = of_numpy()
    there = {"mkl": _mkl().describe()} if _mkl_path() else {}
    return there | ({"numpy": own.describe()} if own else {})


@cache
def _mkl_path() -> str:
    """Where MKL's library lies: from the package `mkl`, or beside Python as conda has it; "" without it."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())).resolve() for file in files if file.name.startswith("libmkl_rt")]
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        found += sorted(Path(prefix, "lib").glob("libmkl_rt.*"))
    return next((str(path) for path in found if path.exists()), "")


@cache
def _mkl() -> Blas:
    path = _mkl_path()
    if not path:
        raise BackendError("no MKL", wanted="Intel's BLAS", do="pip install mkl, or take --blas numpy")
    own = of_numpy()  # found before MKL comes in beside it
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise BackendError(f"MKL cannot be loaded: {error}", do="install mkl again, or take --blas numpy") from None
    if own is None or own.title != "MKL":  # NumPy's MKL has begun to work, in the layer that it has
        library.MKL_Set_Threading_Layer(_MKL_SEQUENTIAL)
        library.MKL_CBWR_Set(_MKL_CBWR_AUTO)
    loaded.cache_clear()
    return next(blas for blas in loaded() if blas.title == "MKL")


def _mkl_kernel(library: ctypes.CDLL) -> str:
    text = ctypes.create_string_buffer(200)
    library.MKL_Get_Version_String(text, len(text))
    words = text.value.decode(errors="replace").partition("Version ")[2]
    branch = _MKL_BRANCHES.get(library.MKL_CBWR_Get_Auto_Branch(), "unknown kernels")
    return f"{words.split('-')[0].split(' ')[0]} {branch}"


_lock = threading.Lock()
_inside = 0
_before: list[tuple[Blas, int]] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, every BLAS works with one thread; may be nested and entered by several threads."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = [(blas, blas.threads()) for blas in loaded()]
            for blas in loaded():
                blas.set_threads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for blas, threads in _before:
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
