"""A trained model out of a checkpoint, of this gpubp or an earlier one.

A digest says that a file is as it was written, not by whom: what is in it is believed no more than an argument is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .data.scaling import KINDS, Scaling
from .data.targets import TargetSpec
from .errors import CheckpointError
from .inference import Model
from .job import Job
from .network import Network
from .recording import FILL, history_rows, reached
from .run_folder import Found, find_checkpoint

log = logging.getLogger("gpubp")


def load(path: str | Path) -> Model:
    """The model of a run folder (its newest sound checkpoint) or of a checkpoint file.

    Raises:
        CheckpointError: nothing there that can be read; the message says why for each file tried.
    """
    found = find_checkpoint(path)
    warn_of_damaged(found)
    return model_from(found.checkpoint)


def model_from(checkpoint: Checkpoint) -> Model:
    """The model that a checkpoint holds.

    Raises:
        CheckpointError: its parts are none of ours, or do not go together.
    """
    with as_gpubp_writes(checkpoint):
        return _model_from(checkpoint)


@contextmanager
def as_gpubp_writes(checkpoint: Checkpoint) -> Iterator[None]:
    """Inside, what Python says of words and numbers that no gpubp has written into a checkpoint becomes one line."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        found = f"the checkpoint of iteration {checkpoint.iteration} is sound, but nothing that gpubp wrote: {why:.200}"
        raise CheckpointError(found, do="take another one") from error


def _model_from(checkpoint: Checkpoint) -> Model:
    Job.from_dict(checkpoint.job)  # commands read single words of it
    network = Network(tuple(checkpoint.network["sizes"]), checkpoint.network["activation"], checkpoint.network["cost"])
    scaling = dict(checkpoint.scaling)
    fill = scaling.pop(FILL, None)
    if scaling["kind"] not in KINDS[1:]:  # "auto" was one of the others by then
        raise ValueError(f"scaling '{scaling['kind']}'")
    for name, value in {**scaling, FILL: fill}.items():
        fits = isinstance(value, np.ndarray) and (value.shape, value.dtype) == (network.sizes[:1], np.float64)
        if name != "kind" and value is not None and not fits:
            raise ValueError(f"leaf 'scaling/{name}' has not one float64 for each feature")
    history = history_rows(checkpoint)
    return Model(
        network,
        network.pack(checkpoint.Theta),
        Scaling(**scaling),
        TargetSpec.from_dict(checkpoint.targets),
        checkpoint.lambda_,
        job=dict(checkpoint.job),
        history=history,
        ending=checkpoint.ending,
        fill=fill,
        reached=reached(history, checkpoint.stopping),
    )


def saved_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the optimizer saved, as it saves it now. Before passes were counted there were evaluations only,
    gd kept no best Θ, and the very first rings of pairs were saved with their empty rows."""
    state = dict(checkpoint.state)
    if "passes" in checkpoint.history_columns:
        return state
    earlier: dict[str, Any] = {"extra": 0.0}
    if checkpoint.optimizer.get("name") == "gd":
        earlier |= {"earlier_J": math.inf, "earlier_Theta": np.zeros_like(state.get("Theta", 0.0))}
    for name in ("S", "Y"):
        if isinstance(ring := state.get(name), np.ndarray) and type(pairs := state.get("pairs")) is int:
            state[name] = ring[: max(0, pairs)]
    return {**earlier, **state}


def warn_of_damaged(found: Found) -> None:
    """Say which checkpoints were passed over, and why."""
    for bad, reason in found.rejected:
        log.warning("%s is damaged and was passed over: %s", bad.name, reason)
