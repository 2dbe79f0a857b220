"""NVIDIA's run-time compiler through ctypes: needs the wheel `nvidia-cuda-nvrtc`, no GPU and no driver."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path


@cache
def library() -> ctypes.CDLL | None:
    """libnvrtc from NVIDIA's wheels (CUDA 13: one folder for all; CUDA 12: one of its own), or None."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except ImportError:
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(root).glob("*/lib/libnvrtc.so.*"), reverse=True):
            return ctypes.CDLL(str(path))
    return None


def compile(text: str, *options: str) -> tuple[bytes, str]:
    """The cubin of a program, and the compiler's log.

    Raises:
        ValueError: it does not compile; with the log.
    """
    nvrtc = library()
    assert nvrtc is not None
    handle, log = _compiled(text, options)
    return _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, handle), log


def ptx(text: str, *options: str) -> str:
    """The PTX of a program, for an ``-arch=compute_…``."""
    nvrtc = library()
    assert nvrtc is not None
    handle, _ = _compiled(text, options)
    return _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, handle).decode()


def _compiled(text: str, options: tuple[str, ...]) -> tuple[ctypes.c_void_p, str]:
    nvrtc = library()
    assert nvrtc is not None
    handle = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(handle), text.encode(), b"test.cu", 0, None, None) == 0
    flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(handle, len(options), flags)
    log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, handle).decode()
    if failed:
        raise ValueError(log)
    return handle, log


def memory(log: str) -> dict[str, tuple[int, int, int]]:
    """By kernel: bytes of stack frame, of spill stores and of spill loads, from a log with ``--ptxas-options=-v``."""
    found = re.findall(
        r"Function properties for '?(\w+)'?\s+.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        log,
        re.DOTALL,
    )
    return {name: (int(stack), int(stores), int(loads)) for name, stack, stores, loads in found}


def _read(size_of, read, handle: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert size_of(handle, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert read(handle, buffer) == 0
    return buffer.raw
