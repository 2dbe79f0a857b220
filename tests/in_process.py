"""The command line within the process of the test, where its faults can be made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from gpubp import checkpoint
from gpubp.cli._main import _run
from gpubp.run_folder import find_checkpoint


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    line: str  # what it says in the end, without "error: "
    log: str  # what it said on stderr before

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith("warning: ")]


def gpubp(capsys: pytest.CaptureFixture[str], *arguments: object, code: int | None = 0) -> Ended:
    """Run `gpubp …` and, unless `code` is None, insist on that exit code; what went wrong is one line, never more."""
    capsys.readouterr()
    with _log_as_it_was():
        found, line = _run([str(a) for a in arguments])
    log = capsys.readouterr().err
    assert "Traceback" not in log and "error: " not in log and "Exception ignored" not in log, log
    assert "\n" not in line and (found in (0, 1, 130, 143, 75) or line.startswith("error: ")), line
    ended = Ended(found, line.removeprefix("error: "), log)
    assert code is None or found == code, f"exit {found}: {line}\n{log}"
    return ended


@contextmanager
def _log_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("gpubp")
    level, handlers = logger.level, logger.handlers[:]
    checkpoint.warn_once.cache_clear()  # as in a process of its own
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def Theta_of(run: Path) -> bytes:
    """The bits of the Θ that the newest checkpoint would return."""
    return b"".join(layer.tobytes() for layer in find_checkpoint(run).checkpoint.Theta)


def newest(run: Path) -> int:
    """The iteration of the newest checkpoint, all of which are sound; −1 where there is none."""
    if not list(run.glob("checkpoint-*.h5")):
        return -1
    found = find_checkpoint(run)
    assert found.rejected == [] and not list(run.glob(".*.tmp.*"))
    return found.checkpoint.iteration
