"""A file that a command makes for its user: refused before the work where it cannot be, then there whole or not at
all."""

from __future__ import annotations

from pathlib import Path

from .checkpoint import is_checkpoint, write_whole
from .errors import CheckpointError, DataError


def refuse_no_folder(path: Path) -> None:
    """Insist on a folder to write into.

    Raises:
        DataError: there is none.
    """
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent}", do="make it first")


def refuse_target(path: Path, what: str, *, overwrite: bool) -> None:
    """Before any work: `what` replaces nothing but an ordinary file that is no checkpoint, and that with `overwrite`.

    Raises:
        DataError: something else is there, or no folder.
    """
    refuse_no_folder(path)
    if path.exists() or path.is_symlink():
        if not path.is_file() or is_checkpoint(path):
            found = "a checkpoint" if path.is_file() else "no ordinary file"
            raise DataError(f"{path} is {found}", wanted=f"a file that {what} may replace")
        if not overwrite:
            raise DataError(f"{path} exists", do="add --overwrite to replace it")


def put(path: Path, data: bytes) -> None:
    """Put a picture or a page where the user wants it, all at once.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(path, data)
    except CheckpointError as error:
        raise DataError(str(error)) from None
