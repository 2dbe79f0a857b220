"""Work in a forked child: everything is imported already, and whatever becomes of the child is a result."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command ended: its exit code (the negative number of the signal that killed it) and what it wrote."""

    code: int
    out: str
    errors: str

    @property
    def error(self) -> list[str]:
        """The lines that begin with `gpubp: error:`."""
        return [line for line in self.errors.splitlines() if line.startswith("gpubp: error: ")]

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.errors


HUNG = -1000  # the code of a child that was still at work when its time was over


def in_child(work: Callable[[], Ended], seconds: float = 60) -> Ended:
    """What `work` gives in a forked child; killed where it takes longer."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        _give(work, into)
    os.close(into)
    pieces, until = [], time.monotonic() + seconds
    hung = False
    with selectors.DefaultSelector() as ready:
        ready.register(out, selectors.EVENT_READ)
        while True:
            hung = not ready.select(max(0.0, until - time.monotonic()))
            if hung:
                os.kill(child, signal.SIGKILL)
                break
            piece = os.read(out, 1 << 16)
            if not piece:
                break
            pieces.append(piece)
    os.close(out)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if hung:
        return Ended(HUNG, "", f"still at work after {seconds:g} s")
    if code:
        return Ended(code, "", f"died with {code}")
    return Ended(*pickle.loads(b"".join(pieces)))


def _give(work: Callable[[], Ended], into: int) -> None:
    """The child's whole life."""
    code = 111
    try:
        os.setsid()
        try:
            done = work()
        except BaseException:
            done = Ended(1, "", traceback.format_exc())
        with open(into, "wb") as pipe:
            pipe.write(pickle.dumps(tuple(done)))
        code = 0
    finally:
        os._exit(code)
