"""A run for TensorBoard: its history as scalars, its kept matrices as histograms, in one file of events."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from .chart import known
from .checkpoint import read
from .errors import CheckpointError, DataError, UsageError
from .follow import History
from .loading import warn_of_damaged
from .recording import history_rows
from .run_folder import checkpoints, find_checkpoint

NAME = "events.out.tfevents.0.gpubp"  # TensorBoard looks for its third word; always the same, so that it is replaced
TAGS = {"J": "cost/training", "validation": "cost/validation", "gradient": "gradient/max", "step": "step/norm"}
SPEED = "speed/passes per second"
_BINS = 60
_VERSION = "brain.Event:2"
_SAMPLED = 1 << 20  # a histogram of more weights is that of so many of them


def write_events(run: str | Path, folder: str | Path) -> Path:
    """Write a run's history and the Θ^(l) of its checkpoints into a folder that TensorBoard is pointed to.

    A later call replaces what an earlier one wrote, so no point is there twice. Scalars are against iterations: J with
    its λ term and the validation cost without it, max|∇J|, ‖Θ_k − Θ_{k−1}‖, passes per second. Times of the day are
    counted back from that of the history file.

    Args:
        run: its folder, at work or not.
        folder: where to; it is made if needed. The run's own folder will do.

    Returns:
        The file.

    Raises:
        UsageError: tensorboardX is missing.
        CheckpointError: the run has no checkpoint that can be read.
        DataError: the file cannot be written.
    """
    try:
        writer: Any = import_module("tensorboardX.record_writer").RecordWriter
        Event: Any = import_module("tensorboardX.proto.event_pb2").Event
    except ImportError:
        do = "install it with pip install 'gpubp[tensorboard]'"
        raise UsageError("events for TensorBoard without tensorboardX", do=do) from None
    run, folder = Path(run), Path(folder)
    found = find_checkpoint(run)
    warn_of_damaged(found)
    rows, began = _history(run, history_rows(found.checkpoint))
    path, temporary = folder / NAME, folder / f".gpubp.tmp.{os.getpid()}"  # no name that TensorBoard looks at
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(writer(str(temporary))) as out:
            out.write(Event(wall_time=began, file_version=_VERSION).SerializeToString())
            for event in _events(run, rows, began, Event):
                out.write(event.SerializeToString())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _history(run: Path, saved: list[dict[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], float]:
    """The longer one of the checkpoint's history and the file beside it, and when the run began, as if it had never
    paused; 0 where the file does not tell."""
    history = History(run)
    history.look()
    rows = history.rows if len(history.rows) > len(saved) else saved
    history.close()
    try:
        last = (run / "history.jsonl").stat().st_mtime
    except OSError:
        return rows, 0.0
    return rows, last - (rows[-1]["seconds"] if rows else 0.0)


def _events(run: Path, rows: Sequence[Mapping[str, Any]], began: float, Event: Any) -> Iterator[Any]:
    """An event for each iteration, and one more for each checkpoint."""
    summaries: Any = import_module("tensorboardX.proto.summary_pb2")
    times = {0: began}
    start: Mapping[str, Any] = {"seconds": 0.0, "passes": 0.0}
    for before, row in pairwise([start, *rows]):
        at = times[row["iteration"]] = began + row["seconds"]
        values = {tag: row.get(name) for name, tag in TAGS.items()}
        seconds = row["seconds"] - before["seconds"]
        if seconds > 0 and known(row.get("passes")) and known(before.get("passes")):
            values[SPEED] = (row["passes"] - before["passes"]) / seconds
        summary = summaries.Summary()
        for tag, value in values.items():
            if known(value):
                summary.value.add(tag=tag, simple_value=value)
        yield Event(wall_time=at, step=row["iteration"], summary=summary)
    histogram: Any = import_module("tensorboardX.summary").histogram
    for path in checkpoints(run):
        try:
            checkpoint = read(path)
        except CheckpointError:  # damaged, or removed by a trainer at work; the newest sound one was found above
            continue
        for l, Theta in enumerate(checkpoint.Theta, start=1):
            weights = Theta.ravel()
            weights = weights[:: -(-weights.size // _SAMPLED)]
            summary = histogram(f"Theta/Theta{l}", weights, _BINS)
            at = times.get(checkpoint.iteration, began)
            yield Event(wall_time=at, step=checkpoint.iteration, summary=summary)
