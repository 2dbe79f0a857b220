"""What `train`, `resume` and `demo` share: running, reporting the end, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from ..communicator import launcher
from ..errors import Stopped
from . import interrupted
from ._options import emit, program, table
from ._progress import Display
from ._stopping import ways_on

SIGNAL_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}


def watched(train: Callable[..., Any]) -> tuple[Any, int]:
    """Run a training under a display and signal handlers; the model and the exit code.

    `train` takes the keywords stop, callbacks, prepared and scanned of `gpubp.run.start`.
    """
    from ..communicator import current
    from ..training import StopRequest

    stop = StopRequest()
    stop.by = "SIGINT" if interrupted() else None
    try:
        with stop.listening(for_good=True), Display() as display:
            model = train(stop=stop, callbacks=[display], prepared=display.prepared, scanned=display.scanned)
    except Stopped as error:
        by = stop.by or current().asked  # of several ranks another one may have been asked
        if launcher.rank() == 0:
            click.echo(f"gpubp: {error}", err=True)
        sys.exit(SIGNAL_CODES[by])
    kind = model.ending["kind"]
    code = 1 if kind == "failed" else 0
    if kind == "stopped" and stop.by:
        code = SIGNAL_CODES[stop.by]
    return model, code


def report(model: Any, out: Path, as_json: bool, code: int) -> NoReturn:
    """Print what a training reached and leave with its code; after a signal also where nobody is left to read it."""
    result = outcome(model, out)
    try:
        emit(result, as_json, outcome_text(result))
        sys.stdout.flush()
    except OSError:
        if code not in SIGNAL_CODES.values():
            raise
        sys.stdout = sys.stderr = None  # of a terminal that is gone: Python must not try them at exit
    sys.exit(code)


def outcome(model: Any, out: Path) -> dict[str, Any]:
    """What a training reached."""
    last = model.history[-1] if model.history else {}
    reached = model.reached
    used = {
        "iterations": last.get("iteration", 0),
        "evaluations": last.get("evaluations", 0),
        "passes": last.get("passes", 0.0),
        "seconds": last.get("seconds", 0.0),
    }
    return {
        "run": out,
        "ending": model.ending["kind"],
        "reason": model.ending["reason"],
        **used,
        "best_iteration": reached.get("iteration"),
        "cost": reached.get("J"),
        "gradient": reached.get("gradient"),
        "validation": reached.get("validation"),
        "precision": last.get("precision", model.job["precision"]),
        "climb": model.job["climb"],
        "go_on": " ".join(ways_on(model, used)),
    }


def passes_text(result: dict[str, Any]) -> str:
    """All that was charged; beside it the evaluations, where something else was."""
    passes, evaluations = result["passes"], result["evaluations"]
    return f"{evaluations}" if passes == evaluations else f"{passes:,.1f} ({evaluations} of them evaluations of J)"


def outcome_text(result: dict[str, Any]) -> str:
    """`outcome` for a person."""
    from ..stopping import count

    lines: list[tuple[str, Any]] = []
    if result["cost"] is not None:
        best = result["best_iteration"]
        at = "" if best in (None, result["iterations"]) else f", at iteration {best}"
        lines.append(("cost J", f"{result['cost']:.6g}{at}"))
        if result["validation"] is not None:
            lines.append(("validation", f"{result['validation']:.6g}"))
        lines.append(("passes", f"{passes_text(result)} for {count(result['iterations'])}, {result['seconds']:.2f} s"))
    lines.append(("ended", result["reason"]))
    lines.append(("run", result["run"]))
    if result.get("go_on"):
        line = f"{program()} resume {result['run']} {result['go_on']}"
        stalled = result["ending"] == "stalled"
        lines.append(("go further", f"{line}: at the next finer precision") if stalled else ("go on", line))
    elif result["ending"] == "stopped" and result["iterations"]:  # before the first one there may be no checkpoint
        lines.append(("go on", f"{program()} resume {result['run']}"))
    return table(lines)
