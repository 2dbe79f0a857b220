"""What the rooms of this folder share: which there are, a small data file, the bits of a run, a folder for a round.

A room is a module with

    WHAT = "kill −9 at random instants, then resume"     one line of the table
    SHORT = 4                                            rounds in the default suite
    def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]

whose docstring begins with what is done to the run and what counts as a loss. A round works in a new folder below
`place` and yields what it counted; counts are added up, but of one whose name begins with "most" the largest is
kept. A loss raises AssertionError with what is needed to see it again. Rounds may go on for ever.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from running import write

from gpubp.checkpoint import Checkpoint
from gpubp.run_folder import find_checkpoint

HERE = Path(__file__).parent


def rooms(folder: Path = HERE) -> dict[str, ModuleType]:
    """Every room, by name."""
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith(("_", "test_")))
    modules = {name: importlib.import_module(name) for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "rounds")}


def added(sum: Counter[str], more: Counter[str]) -> Counter[str]:
    """Two rounds' counts together; see above."""
    return Counter(
        {name: max(sum[name], more[name]) if name.startswith("most") else sum[name] + more[name]
         for name in [*sum, *(name for name in more if name not in sum)]}
    )  # fmt: skip


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A folder for a round, removed if all went well; else it stays for whoever wants to look."""
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


def data_file(path: Path, rows: int = 120, columns: int = 5) -> Path:
    """Rows of three classes that overlap."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, rows)
    X = rng.normal(size=(rows, columns)) + 0.8 * rng.normal(size=(3, columns))[y]
    return write(path, X=X.astype(np.float32), y=y)


def bits(checkpoint: Checkpoint, *, ended: bool = True) -> dict[str, Any]:
    """What must be the same in two runs that were asked for the same, by name; arrays as their bytes.

    Left out: seconds, and of the job where files are, how often it saves and its limit, which a run that has ended by
    itself keeps whatever it is resumed with; without `ended` why it ended.
    """
    # `optimizer` has the last whole
    skipped = {"data", "checkpoint_every", "keep", "threads", "memory", "iterations", "options"}
    timeless = [i for i, name in enumerate(checkpoint.history_columns) if name != "seconds"]
    found: dict[str, Any] = {f"Theta{l}": Theta for l, Theta in enumerate(checkpoint.Theta, start=1)}
    found |= {f"state/{name}": value for name, value in checkpoint.state.items()}
    found |= {f"stopping/{name}": value for name, value in checkpoint.stopping.items()}
    found |= {f"scaling/{name}": value for name, value in checkpoint.scaling.items()}
    found |= {f"job/{name}": value for name, value in checkpoint.job.items() if name not in skipped}
    found |= {"history": checkpoint.history[:, timeless], "columns": checkpoint.history_columns}
    for name in ("network", "optimizer", "lambda_", "targets", "conditions", "iteration"):
        found[name] = getattr(checkpoint, name)
    if ended:
        found["ending"] = checkpoint.ending
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, float):
        return value.hex()  # NaN is itself, and −0 is not 0
    return value


def differing(a: dict[str, Any], b: dict[str, Any]) -> str:
    """The names whose values differ, "" if none."""
    return ", ".join(sorted(name for name in a.keys() | b.keys() if a.get(name, ...) != b.get(name, ...)))


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint of a run in which none may be unsound."""
    found = find_checkpoint(run)
    assert not found.rejected, f"of {run} these are not sound: {found.rejected}"
    return found.checkpoint


def temporary(run: Path, but: int = 0) -> list[str]:
    """The temp files in a folder, but for those of a process at work."""
    names = [path.name for path in run.iterdir()] if run.exists() else []
    return sorted(name for name in names if ".tmp." in name and not name.endswith(f".tmp.{but}"))
