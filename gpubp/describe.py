"""What a path holds, for `gpubp info`: a run, a checkpoint, or a data file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import is_checkpoint
from .data.report import describe_file
from .errors import DataError
from .inference import Model
from .loading import model_from, warn_of_damaged
from .recording import history_rows
from .run_folder import Found, best, checkpoints, find_checkpoint, iteration
from .stopping import Stopping, count


def describe(path: str | Path, **of_file: Any) -> dict[str, Any]:
    """What there is to know about a run folder, a checkpoint file or a data file, JSON-able.

    Args:
        path: any of them.
        of_file: what `describe_file` takes, for a data file alone.

    Raises:
        GpubpError: nothing is there, or it cannot be read; the message says why.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist", wanted="a data file, a run folder or a checkpoint")
    if path.is_dir() or is_checkpoint(path):
        found = find_checkpoint(path)
        warn_of_damaged(found)
        return {**_describe_model(path, model_from(found.checkpoint)), **_describe_files(path, found)}
    return {"data file": path.name, **describe_file(path, **of_file)}


def _files(data: str | list[str] | None) -> str:
    if not data:
        return "arrays"
    return data if isinstance(data, str) else f"{data[0]} and {len(data) - 1} more"


def _limits(job: Mapping[str, Any]) -> str:
    """What ends the run besides its optimizer."""
    limit = count(job["iterations"]) if "iterations" in job else ""
    return "; ".join(text for text in (limit, Stopping.of(job).describe()) if text)


def _describe_model(path: Path, model: Model) -> dict[str, Any]:
    last = model.history[-1] if model.history else {}
    job = model.job
    return {
        "run" if path.is_dir() else "checkpoint": str(path),
        "network": "-".join(map(str, model.network.sizes)),
        "parameters": model.network.parameters,
        "activation": model.network.activation,
        "cost": model.network.cost,
        "lambda": model.lambda_,
        "outputs": model.targets.kind,
        "classes": ", ".join(map(str, model.targets.classes)) if model.targets.classes else "-",
        "scale": model.scaling.describe(),
        "trained on": _files(job.get("data")),
        "optimizer": job.get("optimizer"),
        "precision": last.get("precision") or job.get("precision"),
        "iterations": last.get("iteration", 0),
        "passes": last.get("passes", 0.0),
        "evaluations": last.get("evaluations", 0),
        "Θ of iteration": model.reached.get("iteration"),
        "cost J": model.reached.get("J"),
        "max|∇J|": model.reached.get("gradient"),
        "validation": model.reached.get("validation"),
        "seconds": last.get("seconds"),
        "to end at": _limits(job),
        "ended": model.ending["reason"] if model.ending else "not yet",
        "matrices": [
            f"Theta^({l})  {T.shape[0]} x {T.shape[1]}, bias in column 0" for l, T in enumerate(model.matrices, 1)
        ],
    }


def _describe_files(path: Path, found: Found) -> dict[str, Any]:
    """Which checkpoints a run folder holds, the newest first; nothing of a single file."""
    if not path.is_dir():
        return {}
    rows = {row["iteration"]: row for row in history_rows(found.checkpoint)}
    rejected = {bad.name for bad, _ in found.rejected}
    held = checkpoints(path)
    lowest = best([one for one in held if one.name not in rejected], found.checkpoint)
    lines = []
    for one in reversed(held):
        row = rows.get(iteration(one), {})
        costs = [f"J {row['J']:.6g}"] if row else []
        costs += [f"validation {row['validation']:.6g}"] if row and row["validation"] is not None else []
        said = ["damaged"] if one.name in rejected else ["read here"] if one == found.path else []
        said += ["the best"] if one == lowest and len(held) > 1 else []
        lines.append("  ".join([one.name, *costs, *said]))
    return {"checkpoints": lines}
