"""The command line: thin. A command is one file here: options, one library call, print.

Files that begin with an underscore are shared parts. A command is found by its file name and imported when it is
used, and what it needs is imported inside it, so that `gpubp --help` loads neither NumPy nor h5py.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from ..communicator import abort, launcher

__all__ = ["SHARED", "interrupted", "main"]

SHARED = ("evaluate", "learning-curve", "predict", "resume", "sweep", "train")  # what ranks do together

_heard: list[int] = []


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    _heard.clear()
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    before = sys.unraisablehook

    def quiet(unraisable: Any) -> None:
        # a Ctrl-C that Python swallows is answered all the same, and needs no traceback
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            before(unraisable)

    sys.unraisablehook = quiet
    try:
        try:
            from ._main import main as run
        except KeyboardInterrupt:  # so early a Ctrl-C finds nobody else who would say it in a word
            os.write(2, b"gpubp: interrupted\n")
            if launcher.size() > 1 and _command(sys.argv[1:] if arguments is None else arguments) in SHARED:
                abort(130)  # the others would wait for this one
            sys.exit(130)
        run(arguments)
    finally:
        sys.unraisablehook = before
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _command(words: list[str]) -> str:
    """Which one is meant, before anybody has looked closer."""
    rest = iter(words)
    for word in rest:
        if word == "--config":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def interrupted() -> bool:
    """Whether a Ctrl-C came that ended nothing: Python swallows what is raised in a callback of its own, of which there
    are many while modules are imported."""
    return bool(_heard)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    raise KeyboardInterrupt
