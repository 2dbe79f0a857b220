"""A GPU that fails at any call of a run, at the command line: one line, what can be kept is kept, resume goes on.

The device is the one of `gpu_on_host`; its guard is CuPy's own, on classes of CuPy's with their attributes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER
from in_process import Theta_of, gpubp, newest
from running import write

from gpubp import prepare
from gpubp.backend import cublas
from gpubp.backend.cuda import failures
from gpubp.backend.cupy import CupyBackend
from gpubp.errors import BackendError, OutOfMemory
from gpubp.optimizers.klbfgs import KLBFGSState

host = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")
MOST = 10**9 if os.environ.get("GPUBP_FULL") else 8  # calls of a run at which it fails


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime` has it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class CUDADriverError(RuntimeError):
    """As `cupy.cuda.driver` has it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory` has it."""


def cupy(**more: Any) -> SimpleNamespace:
    """What a guard asks of CuPy."""
    cuda = SimpleNamespace(
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        Device=lambda device: nullcontext(),
    )
    return SimpleNamespace(cuda=cuda, **more)


FULL = OutOfMemoryError("Out of memory allocating 3,840 bytes (allocated so far: 0 bytes).")
ILLEGAL = CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")
LOST = CUDARuntimeError(999, "cudaErrorUnknown: unknown error")
ECC = CUDADriverError(214, "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered")

ALLOCATIONS = ("empty", "upload")
READS = ("to_host",)
CALLS = (*ALLOCATIONS, *READS, "zero", "write", "copy", "launch", "multiply", "send", "mark", "host_waits_for")


class Failing(GpuOnHost):
    """A GPU that fails at its call number `at`, counted from 1: once, or with `stays` at every call from there on.

    Attributes:
        calls: so far; reads: attempts to read its memory after it failed.
    """

    def __init__(self, folder: Path, kernel: str, error: Exception | None, at: int, stays: bool, of: Any) -> None:
        super().__init__(folder, kernel)
        self.choice = {"kernel": kernel}
        self._cupy, self._device, self._entered_by, self.stream = cupy(), 0, None, nullcontext()
        self.calls, self.reads, self.failed = 0, 0, False
        for name in CALLS:
            setattr(self, name, self._counted(name, getattr(self, name), error, at, stays, of))

    def _counted(self, name: str, call: Any, error: Exception | None, at: int, stays: bool, of: Any) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            if self.failed:
                self.reads += name in READS
            if name in of:
                self.calls += 1
                if error is not None and (self.calls == at or (stays and self.failed)):
                    self.failed = True
                    raise error
            return call(*arguments, **more)

        return counted

    @contextmanager
    def guard(self) -> Iterator[None]:
        with GpuOnHost.guard(self), CupyBackend.guard(self):  # pyright: ignore[reportArgumentType]
            yield


@pytest.fixture
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has runs take such a GPU; gives the one they took."""

    def takes(error: Exception | None = None, at: int = 0, stays: bool = True, of: Any = CALLS, room: int = 1 << 60):
        taken: list[Failing] = []

        def choose(name: str, **options: Any) -> tuple[Any, str]:
            backend = Failing(folder, options["kernel"], error, at, stays, of)
            backend.room = room
            taken.append(backend)
            return backend, "the GPU of the test"

        monkeypatch.setattr(prepare, "choose", choose)
        monkeypatch.setattr("gpubp.going_on.choose", choose)
        return taken

    return takes


def options(tmp_path: Path, optimizer: str = "klbfgs") -> list[object]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 300)
    X = (rng.normal(size=(300, 6)) + rng.normal(size=(3, 6))[y]).astype(np.float32)
    path = write(tmp_path / "d.h5", X=X, y=y.astype(np.uint8))
    return ["-q", "train", path, "--hidden", "5", "--iterations", "5", "--checkpoint-every", "2it", "--backend", "gpu",
            "--optimizer", optimizer, "--kernel", "layered"]  # fmt: skip


def spread(count: int) -> list[int]:
    """Of so many calls some all over, the first and the last among them."""
    return sorted({int(n) for n in np.linspace(1, count, min(count, MOST))})


@host
@pytest.mark.parametrize(
    ("error", "room"),
    [(ILLEGAL, 1 << 60), (ILLEGAL, 0), (LOST, 1 << 60), (ECC, 1 << 60)],
    ids=["illegal address", "illegal address, rows sent", "lost", "ECC"],
)
def test_a_device_that_fails_for_good_is_not_read_and_the_last_checkpoint_goes_on(
    machine, tmp_path, capsys, error, room
):
    train = options(tmp_path)
    healthy = machine(room=room)
    gpubp(capsys, *train, "--out", tmp_path / "whole")
    wanted, calls = Theta_of(tmp_path / "whole"), healthy[0].calls
    for at in spread(calls):
        run = tmp_path / f"run {at}"
        (broken,) = [machine(error, at, room=room)]
        ended = gpubp(capsys, *train, "--out", run, code=None)
        if not broken[0].failed:  # rows that are sent are not always as far ahead: it had fewer calls
            assert ended.code == 0 and Theta_of(run) == wanted
            continue
        left = newest(run)
        if ended.code == 0:  # it failed when all was done, and saved
            assert left == 5
        else:
            assert ended.code == 3 and "GPU 0 failed: " in ended.line and str(error) in ended.line, at
            assert "gpubp resume" in ended.line or "nvidia-smi" in ended.line
            assert left in (-1, 0, 2, 4, 5)  # 5: it was done, and failed while it was put away
            assert left in (-1, 5) or f"{left:08}.h5 is kept: gpubp resume {run} goes on" in ended.line, ended.line
        assert broken[0].reads == 0, at
        machine(room=room)
        gpubp(capsys, *(["-q", "resume", run] if left >= 0 else [*train, "--out", run]))
        assert Theta_of(run) == wanted, at


@host
@pytest.mark.parametrize("optimizer", ["klbfgs", "lm"])
def test_a_device_that_is_full_once_gives_up_rows_and_reaches_the_same_bits(machine, tmp_path, capsys, optimizer):
    train = options(tmp_path, optimizer)
    healthy = machine(of=ALLOCATIONS)
    gpubp(capsys, *train, "--out", tmp_path / "whole")
    wanted, went_on = Theta_of(tmp_path / "whole"), 0
    for at in spread(healthy[0].calls):
        run = tmp_path / f"run {at}"
        (full,) = [machine(FULL, at, stays=False, of=ALLOCATIONS)]
        ended = gpubp(capsys, *train, "--out", run, code=None)
        assert full[0].failed
        if ended.code == 0:
            went_on += 1
            assert "GPU 0 is full: Out of memory" in ended.log and "rows stay there" in ended.log
        else:  # before there were rows to give up
            assert ended.code == 3 and "GPU 0 is full" in ended.line and "--memory" in ended.line, at
            machine()
            gpubp(capsys, *(["-q", "resume", run] if newest(run) >= 0 else [*train, "--out", run]))
        assert Theta_of(run) == wanted, at
    assert went_on > 0


@host
def test_a_device_that_stays_full_leaves_the_last_finished_iteration(machine, tmp_path, capsys):
    """A launch that finds no memory for its module, from some call on; the device can be read as before."""
    train = options(tmp_path)
    of = ("launch",)
    healthy = machine(of=of)
    gpubp(capsys, *train, "--out", tmp_path / "whole")
    wanted, kept = Theta_of(tmp_path / "whole"), set()
    full = CUDADriverError(2, "CUDA_ERROR_OUT_OF_MEMORY: out of memory")
    for at in spread(healthy[0].calls):
        run = tmp_path / f"run {at}"
        machine(full, at, of=of)
        ended = gpubp(capsys, *train, "--out", run, code=3)
        assert "GPU 0 is full: CUDA_ERROR_OUT_OF_MEMORY" in ended.line, ended
        left = newest(run)
        kept.add(left)
        lines = (run / "history.jsonl").read_text().count("\n") if left >= 0 else 0
        assert left < 0 or left in (lines, lines - lines % 2)  # the last finished, or in a commit the checkpoint before
        assert left < 0 or f"{left:08}.h5 is kept" in ended.line
        machine()
        gpubp(capsys, *(["-q", "resume", run] if left >= 0 else [*train, "--out", run]))
        assert Theta_of(run) == wanted, at
    assert kept & {1, 3}  # no checkpoint was due there: it was saved because of the error


@host
def test_a_device_that_is_full_in_the_midst_of_a_commit_does_not_take_the_step_again(
    machine, tmp_path, capsys, monkeypatch
):
    """There are rows to give up, but the state is not one between two steps any more."""
    train, run, real, calls = options(tmp_path), tmp_path / "run", KLBFGSState.take, [0]
    machine()
    gpubp(capsys, *train, "--out", tmp_path / "whole")

    def take(*arguments: Any) -> float:
        calls[0] += 1
        if calls[0] == 2:
            raise OutOfMemory("the GPU of the test is full", do="nothing")
        return real(*arguments)

    with monkeypatch.context() as full:
        full.setattr(KLBFGSState, "take", take)
        ended = gpubp(capsys, *train, "--checkpoint-every", "3it", "--out", run, code=3)
    assert calls[0] == 2 and newest(run) == 0 and (run / "history.jsonl").read_text().count("\n") == 1
    assert ended.line.startswith("the GPU of the test is full; nothing; ") and "00000000.h5 is kept" in ended.line
    machine()
    gpubp(capsys, "-q", "resume", run)
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


# What CuPy raises becomes our errors --------------------------------------------------------------------------------


def backend(**more: Any) -> Any:
    """A `CupyBackend` without a device."""
    made = object.__new__(CupyBackend)
    made._cupy, made._device, made._entered_by, made.stream = cupy(**more), 3, None, nullcontext()
    made._functions = {}
    return made


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, r"^GPU 3 is full: Out of memory allocating 3,840 bytes .*--memory"),
        (CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory"), "^GPU 3 is full: cudaErrorMemoryAllocation"),
        (CUDADriverError(2, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), "^GPU 3 is full: CUDA_ERROR_OUT_OF_MEMORY"),
        (ILLEGAL, "^GPU 3 failed: a kernel used an address that is not its own .cudaErrorIllegalAddress.*gpubp resume"),
        (ECC, "^GPU 3 failed: its memory has an error that ECC cannot correct .*--device"),
        (LOST, "^GPU 3 failed: it was lost .*nvidia-smi"),
        (CUDARuntimeError(46, "cudaErrorDevicesUnavailable: busy"), "taken by another process .*--device"),
        (
            CUDARuntimeError(1, "cudaErrorInvalidValue: invalid argument"),
            "^GPU 3 failed: cudaErrorInvalidValue.*resume",
        ),
        (CUDARuntimeError(12345, "cudaErrorOfTomorrow: new"), "^GPU 3 failed: cudaErrorOfTomorrow: new; go on"),
    ],
)
def test_each_of_cupys_errors_is_one_line_that_says_what_to_do(error, words):
    with pytest.raises(BackendError, match=words) as caught, backend().guard():
        raise error
    assert "\n" not in str(caught.value) and isinstance(caught.value, OutOfMemory) == ("is full" in words)


def test_every_status_has_a_meaning_and_something_to_do():
    for status in (*failures._LOST, *failures._REFUSED):
        error = failures.failed(0, status, "cudaErrorX: words")
        assert not isinstance(error, OutOfMemory) and "(cudaErrorX: words)" in error.found and error.do
    assert not failures._LOST.keys() & failures._REFUSED.keys()
    assert failures.is_lost(700) and failures.is_lost(719) and not failures.is_lost(2) and not failures.is_lost(46)


@pytest.mark.parametrize(("status", "kind"), [(3, OutOfMemory), (13, BackendError), (99, BackendError)])
def test_what_cublas_refuses_is_full_or_failed(status, kind):
    error = cublas.failures.refused("cublasGemmEx 3×4×5", status, "" if status == 99 else f"CUBLAS_STATUS_{status}")
    assert type(error) is kind and error.do and str(status) in error.found


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (CUDADriverError(2, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), "GPU 3 is full"),
        (FULL, "GPU 3 is full"),
        (ILLEGAL, "GPU 3 failed: a kernel used an address"),
        (CUDADriverError(218, "CUDA_ERROR_INVALID_PTX: no PTX"), "k does not build: CUDA_ERROR_IN"),
        (RuntimeError("warning: x\nerror: identifier \"z\" is undefined"), "k does not build: error: identifier"),
    ],
)  # fmt: skip
def test_a_kernel_is_not_blamed_for_a_device_that_is_full_or_lost(raised, says):
    def module(**options: Any) -> Any:
        raise raised

    made = backend(RawModule=module)
    kernel = SimpleNamespace(name="k", text="", body="", shared=0, parameters=[])
    with pytest.raises(BackendError, match=says), made.guard():
        made._build(kernel)


def test_no_pinned_memory_is_the_hosts_trouble_and_no_reason_to_give_up_rows():
    made = backend()

    def none(size: int) -> Any:
        raise CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")

    made._cupy.cuda.alloc_pinned_memory = none
    words = r"the host has no 1,024 bytes of pinned memory.*ulimit -l"
    with pytest.raises(BackendError, match=words) as caught, made.guard():
        made.pinned(1024)
    assert not isinstance(caught.value, OutOfMemory)
