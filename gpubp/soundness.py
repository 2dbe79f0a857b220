"""Whether checkpoints are as they were written: those of a run folder, or a single one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .checkpoint import is_checkpoint, verify
from .errors import CheckpointError, visible
from .run_folder import checkpoints, iteration


def holds_checkpoints(path: Path) -> bool:
    """Whether it is a folder, or a checkpoint by its first bytes or by its name: one whose first bytes are damaged must
    not pass for a data file."""
    return path.is_dir() or iteration(path) >= 0 or is_checkpoint(os.path.realpath(path))


def verify_checkpoints(path: Path) -> dict[str, Any]:
    """Compare every byte with the digests in front of each file, in constant memory; nothing is parsed or changed.

    Returns:
        ``path``; ``checkpoints``, the newest first: each one's ``name``, ``bytes`` and ``trouble``, None for a sound
        one; ``sound``, whether all of them are.

    Raises:
        CheckpointError: a folder without a checkpoint.
    """
    held = checkpoints(path)[::-1] if path.is_dir() else [path]
    if not held:
        raise CheckpointError(f"{path} is a folder without a checkpoint", wanted="a data file, a run or a checkpoint")
    found = []
    for one in held:
        trouble, size = None, 0
        try:
            size = os.lstat(one).st_size
            verify(one)
        except (CheckpointError, FileNotFoundError) as error:
            if path.is_dir() and not os.path.lexists(one):
                continue  # a trainer at work removed it, having written a newer one
            trouble = visible(error.found) if isinstance(error, CheckpointError) else f"{one} does not exist"
        found.append({"name": one.name, "bytes": size, "trouble": trouble})
    return {"path": str(path), "checkpoints": found, "sound": all(one["trouble"] is None for one in found)}
