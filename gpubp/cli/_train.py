"""What `train`, `resume` and `demo` share: running, reporting the end, the exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._options import program, table
from ._progress import Display

SIGNAL_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}


def watched(train: Callable[..., Any]) -> tuple[Any, int]:
    """Run a training under a display and signal handlers; the model and the exit code.

    `train` takes the keywords stop, callbacks, prepared and scanned of `gpubp.run.start`.
    """
    from ..training import StopRequest

    stop = StopRequest()
    with stop.listening(), Display() as display:
        model = train(stop=stop, callbacks=[display], prepared=display.prepared, scanned=display.scanned)
    kind = model.ending["kind"]
    code = 1 if kind == "failed" else 0
    if kind == "stopped" and stop.by:
        code = SIGNAL_CODES[stop.by]
    return model, code


def outcome(model: Any, out: Path) -> dict[str, Any]:
    """What a training reached."""
    last = model.history[-1] if model.history else {}
    return {
        "run": out,
        "ending": model.ending["kind"],
        "reason": model.ending["reason"],
        "iterations": last.get("iteration", 0),
        "evaluations": last.get("evaluations", 0),
        "cost": last.get("J"),
        "gradient": last.get("gradient"),
        "validation": last.get("validation"),
        "seconds": last.get("seconds", 0.0),
        "precision": last.get("precision", model.job["precision"]),
        "climb": model.job["climb"],
    }


def outcome_text(result: dict[str, Any]) -> str:
    """`outcome` for a person."""
    lines: list[tuple[str, Any]] = []
    if result["cost"] is not None:
        lines.append(("cost J", f"{result['cost']:.6g}"))
        if result["validation"] is not None:
            lines.append(("validation", f"{result['validation']:.6g}"))
        lines.append(
            ("passes", f"{result['evaluations']} for {result['iterations']} iterations, {result['seconds']:.2f} s")
        )
    lines.append(("ended", result["reason"]))
    lines.append(("run", result["run"]))
    if result["ending"] == "stalled" and result["precision"] != "fp64":
        more = f"--iterations {2 * result['iterations']}" if result["climb"] else "--climb"
        lines.append(("go further", f"{program()} resume {result['run']} {more}: at the next finer precision"))
    if result["ending"] == "limit":
        lines.append(("go on", f"{program()} resume {result['run']} --iterations {2 * max(result['iterations'], 1)}"))
    return table(lines)
