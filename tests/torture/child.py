"""Work in a forked child: everything is imported already, and whatever becomes of the child is a result."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
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
    (done,) = each_in_child([work], seconds)
    return done


def each_in_child(works: Sequence[Callable[[], Ended]], seconds: float = 60) -> Iterator[Ended]:
    """What each of them gives, in order, in a forked child; one that dies or takes longer than that is followed by
    another child, which goes on with the next."""
    rest = list(works)
    while rest:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(out)
            _give(rest, into)
        os.close(into)
        hung = False
        with open(out, "rb") as pipe:
            while rest:
                ready, _, _ = select.select([pipe], [], [], seconds)
                hung = not ready
                if hung or not (head := pipe.read(8)):
                    break
                yield Ended(*pickle.loads(pipe.read(int.from_bytes(head, "little"))))
                rest.pop(0)
        if hung:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if rest:
            yield Ended(HUNG, "", f"still at work after {seconds:g} s") if hung else Ended(code, "", f"died: {code}")
            rest.pop(0)


def _give(works: Sequence[Callable[[], Ended]], into: int) -> None:
    """The child's whole life."""
    code = 111
    try:
        os.setsid()
        with open(into, "wb", buffering=0) as pipe:
            for work in works:
                try:
                    done = work()
                except BaseException:
                    done = Ended(1, "", traceback.format_exc())
                data = pickle.dumps(tuple(done))
                pipe.write(len(data).to_bytes(8, "little") + data)
        code = 0
    finally:
        os._exit(code)
