"""What CUDA's and cuBLAS's statuses mean, and what to do.

The numbers are those of `cudaError` in driver_types.h; since CUDA 10.1 `CUresult` in cuda.h has the same ones. After
those in `_LOST` the context is gone: CUDA answers every later call of the process with the same status, and the
device's memory is worth nothing, so one has to begin in a new process. Of a device that failed in another way nothing
is read either: work is queued, and what failed may have been queued long before.
"""

from __future__ import annotations

from ...errors import BackendError, OutOfMemory

FULL = 2  # cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY
CUBLAS_FULL = 3  # CUBLAS_STATUS_ALLOC_FAILED

_AGAIN = "go on with gpubp resume, which begins in a new process"
_OTHER = "go on with gpubp resume on another device (--device)"
_REPORT = f"{_AGAIN}; where it comes again at the same place, report it"
_DRIVER = "see what nvidia-smi says of it; the driver, the machine or its container may need a restart"

# Statuses after which the context is gone: what happened, what to do.
_LOST = {
    214: (
        "its memory has an error that ECC cannot correct",
        f"{_OTHER}, and have its memory looked at (nvidia-smi -q)",
    ),
    220: ("a link between GPUs (NVLink) has an error that cannot be corrected", _OTHER),
    226: ("a fault of the hardware was contained, and what ran on it ended", _OTHER),
    700: ("a kernel used an address that is not its own", _REPORT),
    702: ("a kernel ran longer than this device allows", f"take a device without a display, or {_AGAIN}"),
    709: ("its context was destroyed", _AGAIN),
    710: ("a kernel's assertion failed", _REPORT),
    714: ("its call stack has an error", _REPORT),
    715: ("a kernel has an instruction that this device does not know", _REPORT),
    716: ("a kernel used an address that is not aligned", _REPORT),
    717: ("a kernel used an address of another address space", _REPORT),
    718: ("a kernel jumped to an address that is not its own", _REPORT),
    719: ("a kernel failed, or the device was lost", _REPORT),
    810: ("the MPS server ended this process's work on it, since another process failed there", _AGAIN),
    999: ("it was lost or fails in a way that has no name", _DRIVER),
}
# Others, after which CUDA may go on.
_REFUSED = {
    3: ("CUDA cannot begin on it", _DRIVER),
    4: ("CUDA is shutting down", _AGAIN),
    35: ("the driver is older than CUDA", "install a newer driver, or gpubp[cuda12]"),
    46: ("it is taken by another process or not to be had", "wait until it is free, or take another one (--device)"),
    100: ("it is gone: no GPU is visible any more", _DRIVER),
    101: ("there is no such device any more", _DRIVER),
    209: ("a kernel was not built for it", "take --backend cpu"),
    222: ("its driver does not know the code that CUDA makes", "install a newer driver"),
    304: ("a call of the operating system failed", _DRIVER),
    701: ("a kernel needs more registers or shared memory than it has", "take --kernel layered"),
    802: ("it is not ready yet", "wait a little and go on with gpubp resume"),
    803: ("its driver and the libraries beside it are of different versions", "restart the machine or its container"),
    805: ("the MPS server cannot be reached", "start it again (nvidia-cuda-mps-control -d)"),
    806: ("the MPS server does not answer", "start it again (nvidia-cuda-mps-control -d)"),
    807: ("the MPS server is not ready", "wait a little and go on with gpubp resume"),
    808: ("the MPS server has as many clients as it takes", "wait until one is done"),
    809: ("the MPS server has as many connections as it takes", "wait until one is done"),
}
# cublasStatus_t of cublas_api.h.
_CUBLAS = {
    1: "take --backend cpu, or install CuPy and CUDA again",  # NOT_INITIALIZED
    7: _REPORT,  # INVALID_VALUE
    8: "take --backend cpu",  # ARCH_MISMATCH
    11: _AGAIN,  # MAPPING_ERROR
    13: _AGAIN,  # EXECUTION_FAILED: the device failed, perhaps earlier
    14: _AGAIN,  # INTERNAL_ERROR
    15: "take --backend cpu",  # NOT_SUPPORTED
    16: "see NVIDIA's licence",  # LICENSE_ERROR
}


def is_lost(status: int) -> bool:
    """Whether the context is gone, so that every later call of this process fails."""
    return status in _LOST


def full(device: int, words: str) -> OutOfMemory:
    """The error of a device that is full."""
    return OutOfMemory(
        f"GPU {device} is full: {words}",
        do="keep fewer rows on it with a smaller --memory, take smaller blocks (block_rows), or --backend cpu",
    )


def failed(device: int, status: int, words: str) -> BackendError:
    """The error of a call that CUDA answered with this status.

    Args:
        words: CUDA's own, with the status's name.
    """
    if status == FULL:
        return full(device, words)
    meaning, do = _LOST.get(status) or _REFUSED.get(status) or ("", _AGAIN)
    return BackendError(f"GPU {device} failed: {f'{meaning} ({words})' if meaning else words}", do=do)


def refused(call: str, status: int, name: str) -> BackendError:
    """The error of a call of cuBLAS's.

    Args:
        name: the status's, as cuBLAS has it; "" where it has none.
    """
    found = f"{call} failed: {name or f'status {status}'}"
    if status == CUBLAS_FULL:
        return OutOfMemory(found, do="keep fewer rows on the GPU with a smaller --memory, or take --backend cpu")
    return BackendError(found, do=_CUBLAS.get(status, _AGAIN))


def status(error: Exception) -> int:
    """CUDA's number for an error of CuPy's; 0 without one."""
    return int(getattr(error, "status", 0))


def words(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
