"""The command line within the process of the test, where its faults can be made."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from running import Result

from gpubp import checkpoint
from gpubp.cli._main import _run, _Stderr
from gpubp.run_folder import find_checkpoint


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    line: str  # what it says in the end, without "error: "
    log: str  # what it said on stderr before

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith("warning: ")]


@contextmanager
def as_in_a_process_of_its_own() -> Iterator[None]:
    """Inside, the command's log goes to stderr, beside whoever listens already, and nothing was warned of before."""
    logger = logging.getLogger("gpubp")
    level, handlers = logger.level, logger.handlers
    logger.handlers = [*(one for one in handlers if not isinstance(one, _Stderr)), _Stderr()]
    checkpoint.warn_once.cache_clear()
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.handlers = handlers


def ran(*arguments: object) -> Result:
    """Run `gpubp …`; how it ended, as of a process of its own. An error that is no line of ours comes out of here."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), as_in_a_process_of_its_own():
        code, line, _ = _run(words := [str(one) for one in arguments])
    return Result(words, code, out.getvalue(), errors.getvalue() + (f"gpubp: {line}\n" if line else ""))


def gpubp(capsys: pytest.CaptureFixture[str], *arguments: object, code: int | None = 0) -> Ended:
    """Run `gpubp …` and, unless `code` is None, insist on that exit code; what went wrong is one line, never more."""
    capsys.readouterr()
    with as_in_a_process_of_its_own():
        found, line, _ = _run([str(a) for a in arguments])
    log = capsys.readouterr().err
    assert "Traceback" not in log and "error: " not in log and "Exception ignored" not in log, log
    assert "\n" not in line and (found in (0, 1, 130, 143, 75) or line.startswith("error: ")), line
    ended = Ended(found, line.removeprefix("error: "), log)
    assert code is None or found == code, f"exit {found}: {line}\n{log}"
    return ended


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
