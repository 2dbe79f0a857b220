"""CuPy on a GPU: kernels made from CUDA text, products by cuBLAS, passes by `backend.cuda`.

CuPy is imported when a backend is asked for and never before. A kernel is built at its first use and kept; one that
does not build is an error with the compiler's words, never a slow path. CuPy adds ``-ftz=true`` to what it compiles:
float32 results below 1.2e-38 become 0.

Everything is queued on one stream, in order, by one thread; only `to_host` waits. Rows that are sent in every pass
travel on a second stream. Every call is made inside `guard`, which also turns CuPy's errors into ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import numpy as np

from ..errors import BackendError, GpubpError
from ..formula import Formula, cast, plus
from ..precision import LADDER
from . import blas, cublas, kernels
from .cuda import failures
from .cuda.device import ALIGN
from .cuda.engine import Engine
from .cuda.layered import layered_plan
from .cuda.pinned import Staging, pinned
from .cuda.vectors import DeviceVectors
from .protocol import LeafLoop, WholeSum

RESERVE = 8  # one part in so many of the memory stays free of resident rows: buffers, labels, gradients
MOST_WORDS = 600  # of a compiler that may talk for pages
DEFAULT_SHARED = 48 << 10  # bytes a block may have without asking

_NUMBERS = {"int": np.int32, "long long": np.int64, "float": np.float32, "double": np.float64}
_SUM = kernels.sum_source()
_NULL = np.uint64(0)  # a null pointer

_INSTALL = "pip install 'gpubp[cuda13]'"
# Switches of cuBLAS that change bits behind our back; those that are set are part of the conditions.
_SWITCHES = ("CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATE_SINGLE_PRECISION", "NVIDIA_TF32_OVERRIDE")


def probe(device: int = 0) -> tuple[bool, str]:
    """Whether the GPU can be used, and one line: what it is, or why not. Never raises.

    A GPU counts as working when it has built and run a kernel and a product.
    """
    try:
        if importlib.util.find_spec("cupy") is None:
            return False, f"CuPy is not installed ({_INSTALL})"
        cupy = _import()
    except Exception as error:
        why = failures.words(error)
        return False, f"CuPy cannot be imported: {why} (CUPY_CACHE_DIR names a folder it can write to)"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return False, _no_device(cupy, error)
    if not 0 <= device < count:
        return False, f"there is no GPU {device}: devices are numbered from 0 and there {_are(count)}"
    try:
        backend = CupyBackend(device)
        with backend.guard():
            three = backend.empty((1, 1), np.dtype(np.float32))
            product = backend.empty((1, 1), np.dtype(np.float32))
            backend.apply(cast, backend.upload(np.full((1, 1), 3, np.uint8)), out=three)
            backend.gemm(three, three, product)
            answer = float(backend.to_host(product)[0, 0])
        if answer != 9:
            return False, f"GPU {device} ({backend.name}) answers {answer} to 3·3"
        return True, f"{backend.name}, GPU {device} of {count}, {backend.memory >> 20:,} MiB"
    except GpubpError as error:
        return False, str(error)
    except Exception as error:
        return False, f"GPU {device} does not work: {failures.words(error)}"


class CupyBackend:
    """One GPU.

    Args:
        device: which, as CUDA numbers them.
        kernel: "fused" (the whole network in one kernel), "layered", or "auto": fused where it can be.

    Attributes:
        stream: where all work is queued.
        sharers: how many processes share its memory.
        processors, shared_memory: multiprocessors, and the bytes of shared memory a block may have.

    Raises:
        BackendError: cuBLAS cannot be loaded or refuses.
        OutOfMemory: not even its workspace fits.
    """

    kind: Literal["gpu"] = "gpu"
    has_engine = True
    owners = 1
    precisions = LADDER

    def __init__(self, device: int = 0, kernel: str = "auto") -> None:
        cupy = self._cupy = _import()
        self._device, self._kernel, self.sharers = device, kernel, 1
        self.choice = {"kernel": kernel}
        self._prepared: dict[tuple[Any, ...], tuple[kernels.Kernel, int, tuple[int, ...]]] = {}
        self._vectors: DeviceVectors | None = None
        self._entered_by: int | None = None  # the thread that is inside `guard`
        self._functions: dict[str, tuple[str, Any, list[Any]]] = {}
        with cupy.cuda.Device(device):
            # not the default stream: that one cannot be captured into a graph
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self._copies = cupy.cuda.Stream(non_blocking=True)
        with self.guard():
            properties = cupy.cuda.runtime.getDeviceProperties(device)
            self.name = properties["name"].decode()
            self.memory = int(properties["totalGlobalMem"])
            self.processors = int(properties["multiProcessorCount"])
            optin = cupy.cuda.runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin
            self.shared_memory = int(cupy.cuda.runtime.deviceGetAttribute(optin, device))
            workspace = self.empty((cublas.WORKSPACE_BYTES,), np.dtype(np.uint8))
            self._cublas = cublas.Cublas(cublas.load(), workspace, workspace.data.ptr, self.stream.ptr)
            self._staging = Staging(cupy)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return self._cupy.empty(shape, dtype)

    @property
    def place(self) -> str:
        """Where it is on its host, by which processes know that they share it: its PCI bus ID."""
        return self._cupy.cuda.Device(self._device).pci_bus_id

    def nccl(self) -> Any:
        """NCCL's functions, see `communicator.nccl`."""
        return importlib.import_module("cupy.cuda.nccl")

    def constant(self, value: float, rows: int, dtype: np.dtype) -> Any:
        return self.upload(np.full((rows, 1), value, dtype))

    def zero(self, array: Any) -> None:
        if array.nbytes:
            array.data.memset_async(0, array.nbytes)

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        if not a.dtype == b.dtype == out.dtype:
            raise ValueError(f"gemm of {a.dtype} and {b.dtype} into {out.dtype}")
        self.multiply(a, b, out, out.dtype.name, transpose=transpose, beta=beta)

    def apply(self, formula: Formula, *inputs: Any, out: Any) -> None:
        kernel, blocks, numbers = self._prepare(formula, (*inputs, out))
        self.launch(kernel, blocks, (*inputs, out, *numbers))

    def total(self, formula: Formula, *inputs: Any, out: Any) -> None:
        kernel, blocks, numbers = self._prepare(formula, inputs)
        if blocks:
            partials = self.empty((blocks,), np.dtype(np.float64))
            self.launch(kernel, blocks, (*inputs, partials, *numbers))
            self.launch(_SUM, 1, (partials, out, blocks))

    def add(self, a: Any, b: Any) -> None:
        self.apply(plus, a, b, out=a)

    def multiply(self, a: Any, b: Any, out: Any, kind: str, *, transpose: str = "nn", beta: int = 0) -> None:
        self._cublas.gemm(_matrix(a), _matrix(b), _matrix(out), kind, transpose=transpose, beta=beta)

    def launch(self, kernel: kernels.Kernel, blocks: int, arguments: Sequence[Any]) -> None:
        found = self._functions.get(kernel.name)
        if found is None or found[0] != kernel.body:
            found = self._functions[kernel.name] = (kernel.body, *self._loaded(kernel))
        _, function, kinds = found
        values = tuple(
            _NULL if argument is None else argument if kind is None else kind(argument)
            for kind, argument in zip(kinds, arguments, strict=True)
        )
        if blocks:
            function((blocks,), (kernel.threads,), values, shared_mem=kernel.shared)

    def write(self, host: np.ndarray, out: Any) -> None:
        self._staging.send(host, out.data)

    def copy(self, source: Any, out: Any) -> None:
        out.data.copy_from_device_async(source.data, source.nbytes)

    def address(self, array: Any) -> int:
        return array.data.ptr

    def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
        self.stream.begin_capture()
        try:
            queue()
        except BaseException:
            with suppress(Exception):  # the first error is the one to be heard
                self.stream.end_capture()
            raise
        graph = self.stream.end_capture()
        return lambda: graph.launch(self.stream)

    def pinned(self, size: int) -> np.ndarray:
        return pinned(self._cupy, size)

    def send(self, host: np.ndarray, out: Any, after: Any) -> Any:
        cuda = self._cupy.cuda
        with cuda.Device(self._device):
            if after is not None:
                self._copies.wait_event(after)
            out.data.copy_from_host_async(host.ctypes.data, host.nbytes, self._copies)
            return self._copies.record(cuda.Event(disable_timing=True))

    def mark(self) -> Any:
        return self.stream.record(self._cupy.cuda.Event(disable_timing=True))

    def wait_for(self, event: Any) -> None:
        self.stream.wait_event(event)

    def past(self, event: Any) -> bool:
        return bool(event.done)

    def host_waits_for(self, event: Any) -> None:
        if event is not None:
            event.synchronize()

    def upload(self, host: np.ndarray) -> Any:
        array = self.empty(host.shape, host.dtype)
        self._staging.send(host, array.data)
        return array

    def resident(self, host: np.ndarray, first: int = 0) -> Any:
        if not isinstance(host, np.ndarray):
            return host  # rows that a caller made on the device
        most = self._cupy.get_default_memory_pool().get_limit() or self.memory
        room = min(self.free_memory() - most // RESERVE, (most - most // RESERVE) // self.sharers)
        row = host.dtype.itemsize * int(np.prod(host.shape[1:]))
        kept = host[: max(0, room) // max(1, row)]
        at = first * row % ALIGN
        memory = self.empty((at + kept.nbytes,), np.dtype(np.uint8))
        rows = memory[at:].view(kept.dtype).reshape(kept.shape)
        if kept.nbytes:
            self._staging.send(kept, rows.data)
        return rows

    def free_memory(self) -> int:
        pool = self._cupy.get_default_memory_pool()
        free, _ = self._cupy.cuda.Device(self._device).mem_info
        most = pool.get_limit() or self.memory
        return min(free + pool.free_bytes(), most - pool.used_bytes())

    def to_host(self, array: Any) -> np.ndarray:
        return array.get()

    def owners_for(self, m: int, sizes: tuple[int, ...]) -> int:
        return 1

    def leaf_loop(self, network: Any, feed: Any, dtype: np.dtype, rows: int, block_rows: int) -> LeafLoop | None:
        return None

    def whole_sum(
        self, network: Any, feed: Any, Theta: np.ndarray, leaves: int, owners: int, block_rows: int,
        own: tuple[int, int] | None = None,
    ) -> WholeSum | None:  # fmt: skip
        return None

    def engine(self, network: Any, feed: Any, lambda_: float, precision: Any, answer: Any, **plan: Any) -> Engine:
        return Engine(self, network, feed, lambda_, precision, answer, kernel=self._kernel, **plan)

    def trim(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()

    def vectors(self) -> DeviceVectors:
        if self._vectors is None:
            self._vectors = DeviceVectors(self)
        return self._vectors

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        return layered_plan(m, sizes)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """The device and our stream are the current ones, and the host's BLAS works with one thread.

        Raises:
            OutOfMemory: the device's memory is full.
            BackendError: CUDA reports an error, perhaps of work queued long before: nothing there is to be read.
        """
        cuda, me = self._cupy.cuda, threading.get_ident()
        try:
            if self._entered_by == me:  # within another one: an evaluation of an optimizer, thousands of times
                yield
                return
            with blas.one_thread(), cuda.Device(self._device), self.stream:
                self._entered_by = me
                try:
                    yield
                finally:
                    self._entered_by = None
        except cuda.memory.OutOfMemoryError as error:
            raise failures.full(self._device, failures.words(error)) from error
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            # of these some also say that it is full: graphs and modules do not take memory from CuPy's pool
            raise failures.failed(self._device, failures.status(error), failures.words(error)) from error

    def conditions(self) -> dict[str, str]:
        cuda = self._cupy.cuda
        switches = [f"{name}={os.environ[name]}" for name in _SWITCHES if name in os.environ]
        return {
            "device": self.name,
            "compute_capability": cuda.Device(self._device).compute_capability,
            "cupy": self._cupy.__version__,
            "cuda": _version(cuda.runtime.runtimeGetVersion()),
            "nvrtc": ".".join(str(part) for part in cuda.nvrtc.getVersion()),
            "driver": _version(cuda.runtime.driverGetVersion()),
            "cublas": " ".join([self._cublas.version, *switches]),
            "blas": blas.describe(),  # the λ term and folding are the host's
            **blas.conditions(),
        }

    def _prepare(self, formula: Formula, arrays: tuple[Any, ...]) -> tuple[Any, int, tuple[int, ...]]:
        """The kernel, its number of blocks and its integers, kept for arrays that look like these."""
        look = (formula, *[(array.shape, array.strides, array.dtype) for array in arrays])
        if look not in self._prepared:
            launch = kernels.plan(formula, arrays)
            kernel = kernels.source(formula, launch.types, wide=launch.wide)
            self._prepared[look] = kernel, launch.blocks, launch.numbers
        return self._prepared[look]

    def _loaded(self, kernel: kernels.Kernel) -> tuple[Any, list[Any]]:
        """The kernel, and how its arguments are handed over: None as they are, else by NumPy's type."""
        function = self._build(kernel)
        if kernel.shared > DEFAULT_SHARED:
            function.max_dynamic_shared_size_bytes = kernel.shared
            function.preferred_shared_memory_carveout = 100  # percent: as many blocks as were planned are to fit
        return function, [None if type.endswith("*") else _NUMBERS[type] for type in kernel.parameters]

    def _build(self, kernel: kernels.Kernel) -> Any:
        try:
            # CuPy writes the text to a file in the locale's encoding, which may know no Greek
            text = kernel.text.encode("ascii", "replace").decode()
            module = self._cupy.RawModule(code=text, options=kernels.OPTIONS)
            return module.get_function(kernel.name)
        except Exception as error:  # compiler, missing compiler or headers, cache folder, driver: all are final
            cuda = self._cupy.cuda
            if isinstance(error, cuda.memory.OutOfMemoryError):
                raise
            of_cuda = isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError))
            if of_cuda and (failures.status(error) == failures.FULL or failures.is_lost(failures.status(error))):
                raise  # nothing is wrong with the kernel: `guard` says what is
            words = failures.words(error)
            words = words[max(0, words.find("error: ")) :]  # a compiler's warnings come first
            raise BackendError(f"the CUDA kernel {kernel.name} does not build: {words[:MOST_WORDS]}") from error


def _import() -> Any:
    """CuPy: by name, because a checker takes `import cupy` in this file for this file."""
    return importlib.import_module("cupy")


def _matrix(array: Any) -> cublas.Matrix:
    if not array.flags.c_contiguous:
        raise ValueError(f"a product of a matrix that is not contiguous, strides {array.strides}")
    return cublas.Matrix(array.data.ptr, *array.shape)


def _no_device(cupy: Any, error: Exception) -> str:
    runtime = cupy.cuda.runtime
    driver = runtime.driverGetVersion()
    if driver == 0:
        return "there is no NVIDIA driver"
    if "InsufficientDriver" in str(error):
        found, wanted = _version(driver), _version(runtime.runtimeGetVersion())
        return f"the NVIDIA driver is for CUDA {found} and CuPy for {wanted} (a newer driver, or 'gpubp[cuda12]')"
    return f"no GPU is visible: {failures.words(error)}"


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
