"""Any CUDA kernel of ours, run on the CPU: its text compiled by the host's compiler when it is first launched."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpubp.backend.kernels import Kernel

COMPILER = shutil.which("g++") or shutil.which("clang++")
_NUMBERS = {"int": ctypes.c_int, "unsigned": ctypes.c_uint, "long long": ctypes.c_longlong, "float": ctypes.c_float,
            "double": ctypes.c_double}  # fmt: skip


_ONE = threading.RLock()  # the text has variables of its own, and what one thread builds another may load


class HostPrograms:
    """Kernels by their text, built once each in a folder; a block's threads are fibers (`cuda_on_host.hpp`)."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        self._functions: dict[Kernel, Any] = {}

    def launch(self, kernel: Kernel, blocks: int, arguments: Sequence[Any]) -> None:
        """As `CupyBackend.launch`; arrays are NumPy's. Shared memory is filled with NaN before each launch."""
        assert len(arguments) == len(kernel.parameters), (kernel.name, len(arguments), kernel.parameters)
        values = [
            (array.ctypes.data if array is not None else None) if type.endswith("*") else _NUMBERS[type](array)
            for array, type in zip(arguments, kernel.parameters, strict=True)
        ]
        shared = np.full(kernel.shared + 64, 0xFF, np.uint8)  # 0xFFFFFFFF is a NaN
        start = -shared.ctypes.data % 64
        with _ONE:
            if kernel not in self._functions:
                self._functions[kernel] = self._build(kernel)
            self._functions[kernel](ctypes.c_uint(blocks), ctypes.c_void_p(shared.ctypes.data + start), *values)

    def _build(self, kernel: Kernel) -> Any:
        list_of = ", ".join(f"{type} a{i}" for i, type in enumerate(kernel.parameters))
        # file-level copies, because a fiber's function takes no arguments
        copies = "".join(f"static {_object(type)} c{i};\n" for i, type in enumerate(kernel.parameters))
        sets = " ".join(f"c{i} = ({_object(type)})a{i};" for i, type in enumerate(kernel.parameters))
        uses = ", ".join(f"c{i}" for i in range(len(kernel.parameters)))
        text = (
            '#include "cuda_on_host.hpp"\n' + kernel.text + copies
            + f'extern "C" void run_it(unsigned blocks, void* memory, {list_of}) {{\n'
            + f"  shared_ = (unsigned char*)memory; {sets}\n"
            + f"  launch(blocks, {kernel.threads}, [] {{ {kernel.name}({uses}); }});\n}}\n"
        )  # fmt: skip
        name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        path, library = self._folder / f"{name}.cpp", self._folder / f"{name}.so"
        if library.exists():
            return self._load(library, kernel)
        path.write_text(text)
        self._compile("-shared", "-o", library, path)
        return self._load(library, kernel)

    def _compile(self, *arguments: Any) -> None:
        here = Path(__file__).parent
        header = self._folder / "cuda_on_host.hpp.gch"  # found beside the kernels' own text: half of the time
        common = [COMPILER or "", "-std=c++17", "-O1", "-w", "-fPIC", f"-I{here}", *self._options]
        commands = [[*common, *arguments]]
        if not header.exists():
            commands.insert(0, [*common, "-x", "c++-header", here / "cuda_on_host.hpp", "-o", header])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    @staticmethod
    def _load(library: Path, kernel: Kernel) -> Any:
        function = ctypes.CDLL(str(library)).run_it
        function.argtypes = [
            ctypes.c_uint, ctypes.c_void_p,
            *(ctypes.c_void_p if type.endswith("*") else _NUMBERS[type] for type in kernel.parameters),
        ]  # fmt: skip
        return function


def _object(type: str) -> str:
    """The C type of a copy of a parameter."""
    return type
