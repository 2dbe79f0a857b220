"""The folder of a sweep or a learning curve: what was asked, the points that are done, the result.

    DIR/lock           held by the one at work
    DIR/plan.json      what was asked, and a fingerprint of the data
    DIR/point-….npz    one for each finished training: its figures and its Θ
    DIR/result.json    what came of it all

Each file is written whole, so one that was interrupted at any instant goes on after the last finished point.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import __version__
from ..checkpoint import write_whole
from ..communicator import Communicator
from ..errors import CheckpointError, MismatchError
from ..run_folder import RunFolder
from .point import Point

log = logging.getLogger("gpubp")

_PLAN, _RESULT = "plan.json", "result.json"
_OURS = re.compile(r"lock|plan\.json|result\.json|point-[\w.+-]+\.npz|\..*\.tmp\.\d+")
_LEFT = re.compile(r"\.(plan\.json|result\.json|point-[\w.+-]+\.npz)\.tmp\.\d+")
_FREE = ("threads", "memory", "checkpoint_every", "keep")  # what may differ when it goes on: no figure depends on it
_GROW = ("lambdas", "networks")  # to these some may be added: the points that are done stay good
# options whose names are not those of their fields
_SHOWN = {"lambda_": "--lambda", "lambdas": "--lambda", "networks": "--hidden", "options": "--set", "folds": "--cv"}


class Record:
    """The folder, or nothing where there is none; use as a context manager.

    Args:
        path: None to keep nothing.
        plan: what was asked, JSON-able, "kind" and "job" in it.
        ranks: the processes that train together; the first of them has the folder.

    Raises:
        MismatchError: the folder holds another sweep or learning curve; the message names what differs.
        CheckpointError: it holds something else, is in use, or cannot be written.
    """

    def __init__(self, path: str | Path | None, plan: Mapping[str, Any], ranks: Communicator) -> None:
        self.path = None if path is None or ranks.rank > 0 else Path(path)
        self._ranks = ranks
        self.plan: dict[str, Any] = json.loads(json.dumps({"gpubp": __version__, **plan}))
        self._folder: RunFolder | None = None
        self._fingerprint: str | None = None
        self._written = False

    def __enter__(self) -> Record:
        with self._ranks.together(), self._ranks.alone(_LOOKING):
            if self.path is not None:
                self._compare()  # before anything is made or written
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.__exit__(kind, error, trace)
            self._folder = None

    def _compare(self) -> None:
        assert self.path is not None
        _refuse_others(self.path)
        stored = self._stored()
        if stored is None:
            return
        if stored.get("kind") != self.plan["kind"]:
            raise MismatchError(f"{self.path} holds a {stored.get('kind')}", wanted=f"a {self.plan['kind']}", do=_OTHER)
        self._fingerprint, self._written = stored.get("data"), {**self.plan, "data": stored.get("data")} == stored
        differ = list(_differences(stored, self.plan))
        if differ:
            raise MismatchError(
                f"{self.path} was begun otherwise: {'; '.join(differ)}",
                wanted="what it was begun with",
                do=_OTHER,
            )

    def _stored(self) -> dict[str, Any] | None:
        assert self.path is not None
        try:
            found = json.loads((self.path / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path / _PLAN} cannot be read: {error}", do=_OTHER) from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.path / _PLAN} is no plan", do=_OTHER)
        return found

    def begin(self, fingerprint: str, what: str) -> None:
        """The data are good: take the folder, and note which they are. Before this nothing is made or written.

        Raises:
            MismatchError: the folder was begun with other data, or by now otherwise.
            CheckpointError: it is in use, or cannot be written.
        """
        with self._ranks.together(), self._ranks.alone(_LOOKING):
            self._begin(fingerprint, what)

    def _begin(self, fingerprint: str, what: str) -> None:
        if self.path is not None:
            self._folder = RunFolder(self.path).__enter__()
            self._compare()  # again, now that nobody else can write
            with suppress(OSError):
                for left in filter(_LEFT.fullmatch, os.listdir(self.path)):  # by one that was killed
                    os.unlink(self.path / left)
        if self._fingerprint not in (None, fingerprint):
            raise MismatchError(
                f"{what}: not the data that {self.path} was begun with",
                wanted="the same rows, labels and weights",
                do=_OTHER,
            )
        if self.path is not None and not self._written:
            write_whole(self.path / _PLAN, json.dumps({**self.plan, "data": fingerprint}, indent=1).encode())
        self._fingerprint, self._written = fingerprint, True

    def save(self, name: str, point: Point, Theta: np.ndarray) -> None:
        """Keep a finished point; when this returns it is on the disk."""
        with self._ranks.together(), self._ranks.alone("keeping a point"):
            if self.path is not None:
                image = io.BytesIO()
                np.savez(image, Theta=Theta, point=np.array(json.dumps(asdict(point))))
                write_whole(self.path / f"point-{name}.npz", image.getbuffer())

    def load(self, name: str, P: int) -> tuple[Point, np.ndarray] | None:
        """A finished point and its flat Θ of length P; None where there is none, or none that is sound."""
        with self._ranks.together(), self._ranks.alone(_LOOKING):
            found = self._load(name, P)
        return self._ranks.share(found)

    def _load(self, name: str, P: int) -> tuple[Point, np.ndarray] | None:
        path = None if self.path is None else self.path / f"point-{name}.npz"
        if path is None or not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
                Theta, text = found["Theta"], str(found["point"])
            values = json.loads(text)
            known: dict[str, Any] = {one.name: values[one.name] for one in fields(Point)}
            known["hidden"] = tuple(known["hidden"])
            point = Point(**known)
            if Theta.shape != (P,) or Theta.dtype != np.float64 or not np.isfinite(Theta).all():
                raise ValueError(f"a Theta of shape {Theta.shape}")
            return point, Theta
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged and is made again: %s", path.name, " ".join(str(error).split()))
            return None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result."""
        with self._ranks.together(), self._ranks.alone("writing the result"):
            if self.path is not None:
                text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
                write_whole(self.path / _RESULT, f"{text}\n".encode())


_LOOKING = "looking at the folder"
_OTHER = "name another folder with --out"


def _refuse_others(path: Path) -> None:
    """Refuse a folder that holds a run or something else.

    Raises:
        CheckpointError: so it is, or it is no folder.
    """
    if not path.is_dir():
        if path.exists() or path.is_symlink():
            raise CheckpointError(f"{path} is no folder", wanted="a folder", do=_OTHER)
        return
    others = sorted(name for name in os.listdir(path) if not _OURS.fullmatch(name))
    if others:
        raise CheckpointError(f"{path} holds {others[0]}", wanted="a new or empty folder", do=_OTHER)


def _differences(stored: Mapping[str, Any], plan: Mapping[str, Any]) -> Any:
    """What was asked otherwise, as a person would write it."""
    for name in sorted({*stored, *plan} - {"job", "data"}):
        grown = name in _GROW and all(one in plan[name] for one in stored.get(name) or ())
        if stored.get(name) != plan.get(name) and not grown:
            yield f"{_option(name)} was {_text(stored.get(name))}, is {_text(plan.get(name))}"
    before, now = stored.get("job") or {}, plan["job"]
    for name in sorted({*before, *now} - set(_FREE) - {"data"}):  # where the file lies does not matter: see `begin`
        if before.get(name) != now.get(name):
            yield f"{_option(name)} was {_text(before.get(name))}, is {_text(now.get(name))}"


def _option(name: str) -> str:
    return _SHOWN.get(name, "--" + name.replace("_", "-")) if name != "gpubp" else "gpubp's version"


def _text(value: Any) -> str:
    return "not given" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
