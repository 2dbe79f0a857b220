"""From a kernel's text to its address in memory: compiled once by numba, kept on disk.

numba keeps compiled code only for functions that lie in a file, so each text is a file of its own in a cache folder,
named by what is in it. The folder is `$GPUBP_CACHE`, else `gpubp` in `$XDG_CACHE_HOME` or `~/.cache`, and in it one for
each state of this package's code, which is compiled into every kernel. Where none can be written (a container with a
read-only root, a user without a home), it is a temporary one that goes with the process. Whoever can write there can
run code as us, so a folder of somebody else's is never used.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import BackendError

log = logging.getLogger("gpubp")


@cache
def cache_folder() -> Path:
    """Where compiled code is kept; made if need be."""
    ours = Path(os.environ.get("GPUBP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "gpubp"))
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    try:
        ours = ours.expanduser().absolute()
        folder = ours / hashlib.blake2b(code, digest_size=8).hexdigest()
        ours.parent.mkdir(parents=True, exist_ok=True)
        for one in (ours, folder):
            one.mkdir(mode=0o700, exist_ok=True)
            state = one.stat()
            if state.st_uid != os.geteuid() or state.st_mode & 0o022:
                raise PermissionError(None, "others can write there", str(one))
        with tempfile.TemporaryFile(dir=folder):
            pass
        return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        why = getattr(error, "strerror", None) or error
        log.info("compiled code is not kept in %s: %s; GPUBP_CACHE names another folder", ours, why)
    folder = Path(tempfile.mkdtemp(prefix="gpubp-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def kept_on_disk() -> Iterator[None]:
    """Inside, functions that numba is given with ``cache=True`` are kept in our folder, and nobody else's are."""
    config: Any = importlib.import_module("numba.core.config")
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache
def address(text: str) -> int:
    """The address of the function `kernel` of such a text.

    Raises:
        BackendError: numba cannot compile it; the message has numba's words and the file.
    """
    return int(_module(text).kernel.address)


def _module(text: str) -> ModuleType:
    name = f"kernel_{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
    path = cache_folder() / f"{name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba looks for the function's module by its name
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with kept_on_disk():
            spec.loader.exec_module(module)
    except Exception as error:
        words = " ".join(str(error).split())
        raise BackendError(f"numba cannot compile {path}: {words:.400}", do="take --kernel numpy") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def column_sums() -> Any:
    """The module `columns`, likewise."""
    with kept_on_disk():
        from . import columns
    return columns


def loops() -> tuple[Any, Any]:
    """The modules `leaf` and `owners`, whose loops are compiled when they are first called and kept on disk."""
    with kept_on_disk():
        from . import leaf, owners
    return leaf, owners
