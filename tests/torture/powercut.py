"""The power is cut before, between and within all calls of a real training; every folder that may be left is looked at.

A model of the worst that file systems do (T. S. Pillai and others, All File Systems Are Not Created Equal, OSDI 2014).
Of a file all is safe that was there at its last fsync; of what was written later anything may be there: none, all, a
first part of any write, later writes without earlier ones, zeros in place of bytes whose length has arrived. Of a
folder's names those of its last fsync are safe; of the later changes any first part may be there, as with an ordered
journal, and in the harsher half of the model any choice of them. A rename is atomic.

A loss is: the newest sound checkpoint is older than the last one that was reported as saved, or has not the very bits
that were saved; something damaged is believed; or the folder cannot be gone on with to the bits of the undisturbed run.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from disk import Call, Disk
from tinyrun import data_in, difference, job, newest

from gpubp.checkpoint import Checkpoint
from gpubp.errors import CheckpointError
from gpubp.run import resume, start
from gpubp.run_folder import RunFolder, find_checkpoint

WHAT = "the power cut before, between and within all calls"
SHORT = 3
_MOST_FREE = 8  # changes of names, of which any choice may survive; beyond that the oldest are a first part
_RESUMED = 12  # resumes that a round tries, of folders of different kinds


@dataclass
class _File:
    """A file as the program has it, as it is safe, and what was done since."""

    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # (at, data); (length, None) cuts
    _left: list[bytes] = field(default_factory=list)

    def do(self, at: int, data: bytes | None) -> None:
        self._left = []
        _apply(self.now, at, data)
        self.since.append((at, data))

    def sync(self) -> None:
        self.safe, self.since, self._left = bytes(self.now), [], []

    def left(self) -> list[bytes]:
        """What may be found of it."""
        self._left = self._left or self._all_left()
        return self._left

    def _all_left(self) -> list[bytes]:
        found = {self.safe: None, bytes(self.now): None}
        for n in range(1, len(self.since) + 1):
            first, last = self.since[:n], self.since[-n:]
            found[self._with(first)] = found[self._with(last)] = None
            at, data = first[-1]
            if data is None:
                continue
            found[self._with([*first[:-1], (at, bytes(len(data)))])] = None
            for torn in {1, 512, len(data) // 2, len(data) // 2 + 512, 4096, len(data) - 1}:
                if 0 < torn < len(data):
                    found[self._with([*first[:-1], (at, data[:torn])])] = None
                    found[self._with([*first[:-1], (at, data[:torn] + bytes(len(data) - torn))])] = None
        if self.since:
            found[self._with([(at, data and bytes(len(data))) for at, data in self.since])] = None
        return list(found)

    def _with(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        content = bytearray(self.safe)
        for at, data in changes:
            _apply(content, at, data)
        return bytes(content)


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
    else:
        content.extend(bytes(max(0, at - len(content))))
        content[at : at + len(data)] = data


class Model:
    """The disk as it would be after a cut; it begins with the files of a folder that is safe as it is."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files: list[_File] = []
        self.now: dict[str, int] = {}
        for name, content in files.items():
            self._make(name, bytearray(content))
            self.files[-1].sync()
        self.safe = dict(self.now)
        self.since: list[tuple[tuple[str, int | None], ...]] = []  # changes of names; None: no longer there

    def do(self, call: Call) -> None:
        """One call more is done."""
        what, name = call.what, call.path
        if what == "open":
            if call.made:
                self._make(name, bytearray())
                self.since.append(((name, self.now[name]),))
            elif call.flags & os.O_TRUNC:
                self.files[self.now[name]].do(0, None)
        elif what in ("write", "pwrite"):
            self.files[self.now[name]].do(call.at, call.data)
        elif what == "ftruncate":
            self.files[self.now[name]].do(call.at, None)
        elif what in ("fsync", "fdatasync"):
            if name == ".":
                self.safe, self.since = dict(self.now), []
            else:
                self.files[self.now[name]].sync()
        elif what == "replace":
            self.now[call.to] = self.now.pop(name)
            self.since.append(((name, None), (call.to, self.now[call.to])))
        elif what == "unlink":
            del self.now[name]
            self.since.append(((name, None),))
        elif what not in ("close", "flock", "saved"):
            raise AssertionError(f"the model knows no {call}")

    def folders(self) -> Iterator[dict[str, bytes]]:
        """Every folder that may be left; of files that hold no checkpoint only what may matter."""
        for names in self._names():
            unsure = {name: i for name, i in names.items() if self.files[i].since}
            certain = {name: self.files[i].safe for name, i in names.items() if name not in unsure}
            checkpoints = {name: i for name, i in unsure.items() if name.endswith(".h5")}
            others = {name: i for name, i in unsure.items() if name in ("lock", "history.jsonl")}
            now = {name: bytes(self.files[i].now) for name, i in unsure.items()}
            safe = {name: self.files[i].safe for name, i in unsure.items()}
            yield certain | now
            yield certain | safe
            for rest in (now, safe) if len(checkpoints) > 1 else (now,):  # one file in every way, the rest in two
                for name, i in checkpoints.items():
                    for left in self.files[i].left():
                        yield certain | rest | {name: left}
            for name, i in others.items():
                for left in self.files[i].left():
                    yield certain | safe | {name: left}

    def _make(self, name: str, content: bytearray) -> None:
        self.now[name] = len(self.files)
        self.files.append(_File(content))

    def _names(self) -> Iterator[dict[str, int]]:
        seen = set()
        free = self.since[-_MOST_FREE:]
        before = self.since[: len(self.since) - len(free)]
        choices = [[*before, *(one for one, kept in zip(free, mask, strict=True) if kept)]
                   for mask in itertools.product((True, False), repeat=len(free))]  # fmt: skip
        for done in [*(self.since[:n] for n in range(len(self.since) + 1)), *choices]:
            names: dict[str, int] = dict(self.safe)
            for name, i in itertools.chain(*done):
                if i is None:
                    names.pop(name, None)
                else:
                    names[name] = i
            key = frozenset(names.items())
            if key not in seen:
                seen.add(key)
                yield names


@dataclass
class Recorded:
    """A training that was recorded.

    Attributes:
        before: the folder as it was, by names.
        calls: what it asked of the disk.
        ends: the last checkpoints of the undisturbed runs: of the earlier one, if there was one, and of this one.
    """

    before: dict[str, bytes]
    calls: list[Call]
    ends: list[Checkpoint]

    def without(self, what: str, folder: bool = False) -> Recorded:
        """The same training by a saver that leaves out that call, of files or of the folder."""
        kept = [call for call in self.calls if call.what != what or (call.path == ".") != folder]
        return Recorded(self.before, kept, self.ends)


def _content(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir())}


def trained(
    place: Path, data: Path, case: str, most: int | None = None, broken: Any = nullcontext, **asked: Any
) -> Recorded:
    """Record a training in `place`/run: "new", "resumed" from its first checkpoint on, or "overwriting" another one.

    `broken` is one of saver.py, in place while it is recorded.
    """
    run = place / "run"
    run.mkdir(parents=True)
    ends = []
    if case == "overwriting":
        start(job(data, lambda_=2.0, **asked), run)
        ends.append(newest(run))
    elif case == "resumed":
        start(job(data, **(asked | {"iterations": 1})), run)
    with RunFolder(run):  # the lock and the folder's name are there, from now on safe
        pass
    before = _content(run)
    with Disk(run, most=most) as disk, broken():
        if case == "resumed":
            resume(run, iterations=job(data, **asked).iterations)
        else:
            start(job(data, **asked), run, overwrite=case == "overwriting")
    return Recorded(before, disk.calls, [*ends, newest(run)])


def losses(
    recorded: Recorded,
    place: Path,
    data: Path,
    dice: random.Random,
    *,
    resumes: int = _RESUMED,
    enough: float = math.inf,
) -> Counter[str]:
    """Cut the power everywhere: what was looked at, the losses (no more than are `enough`), and where each was."""
    model, counted = Model(recorded.before), Counter[str](cuts=0, folders=0, resumed=0, lost=0)
    order = _order(recorded)
    reported = max((order[_digest(b)] for n, b in recorded.before.items() if n.endswith(".h5")), default=-1)
    seen: set[tuple[int, frozenset[tuple[str, bytes]]]] = set()
    kinds: dict[Any, dict[str, bytes]] = {}
    for number in range(len(recorded.calls) + 1):
        if number:
            call = recorded.calls[number - 1]
            model.do(call)
            if call.what == "saved":
                reported = order[_digest(bytes(model.files[model.now[call.path]].now))]
        for files in model.folders():
            counted["cuts"] += 1
            hashed = frozenset((name, _digest(content)) for name, content in files.items())
            sound = frozenset(one for one in hashed if one[0].endswith(".h5"))
            lock, history = files.get("lock", b"-"), files.get("history.jsonl", b"-")
            kind = sound, lock, history[-1:], any(".tmp." in name for name in files)
            kinds.setdefault(kind, files)
            if (reported, sound) in seen:
                continue
            seen.add((reported, sound))
            counted["folders"] += 1
            lost = _looked(files, place / "after", order, reported)
            if lost:
                counted["lost"] += 1
                counted[f"call {number}: {lost}"] += 1
                if counted["lost"] >= enough:
                    return counted
    chosen = dice.sample(list(kinds.values()), min(resumes, len(kinds)))
    for files in chosen:
        counted["resumed"] += 1
        lost = _gone_on(files, place / "after", recorded, data)
        if lost:
            counted["lost"] += 1
            counted[lost] += 1
    return counted


def unsafe_folders(calls: list[Call]) -> list[str]:
    """Folders that were made, and whose names were not safe yet when the first checkpoint was reported."""
    unsafe: dict[str, str] = {}
    for call in calls:
        if call.what == "mkdir":
            unsafe[call.path] = os.path.dirname(call.path) or "."
        elif call.what in ("fsync", "fdatasync"):
            unsafe = {path: parent for path, parent in unsafe.items() if parent != call.path}
        elif call.what == "saved":
            break
    return list(unsafe)


def _order(recorded: Recorded) -> dict[bytes, int]:
    """Of whole checkpoints, by their digests: which came after which."""
    held = sorted(recorded.before.items())
    order = {_digest(content): n for n, (name, content) in enumerate(held) if name.endswith(".h5")}
    model = Model(recorded.before)
    for call in recorded.calls:
        model.do(call)
        if call.what == "replace" and call.to.endswith(".h5") and not call.path.endswith(".h5"):
            order[_digest(bytes(model.files[model.now[call.to]].now))] = len(held) + len(order)
    return order


def _laid(files: dict[str, bytes], run: Path) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for name, content in files.items():
        (run / name).write_bytes(content)
    return run


def _looked(files: dict[str, bytes], run: Path, order: dict[bytes, int], reported: int) -> str:
    """What is lost, to a reader, of a folder that must have that checkpoint or a later one; "" if nothing."""
    try:
        found = find_checkpoint(_laid(files, run))
    except CheckpointError as error:
        return f"nothing found: {error}" if reported >= 0 else ""
    content = files[found.path.name]
    if _digest(content) not in order:
        return f"{found.path.name} is believed and was never saved so"
    if order[_digest(content)] < reported:
        return f"{found.path.name} is older than what was reported"
    return ""


def _gone_on(files: dict[str, bytes], run: Path, recorded: Recorded, data: Path) -> str:
    """What is lost to a person who goes on; "" if nothing."""
    _laid(files, run)
    end = recorded.ends[-1]
    try:
        if any(name.endswith(".h5") for name in files):
            if find_checkpoint(run).checkpoint.lambda_ != end.lambda_:
                end = recorded.ends[0]
            resume(run, iterations=end.iteration)
        else:
            start(job(data, **{k: end.job[k] for k in ("iterations", "keep", "optimizer", "options")}), run)
    except CheckpointError as error:
        return f"no going on: {' '.join(str(error).split()[1:])}"
    differs = difference(newest(run), end)
    left = [name for name in os.listdir(run) if ".tmp." in name]
    return f"{differs} is other than the undisturbed run's" if differs else f"left behind: {left[0]}" if left else ""


@lru_cache(4096)
def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    """First each kind of training in small, then larger ones without an end."""
    data = data_in(place / "data")
    small: Any = {"keep": 2, "iterations": 2}
    plans: list[tuple[str, int | None, dict[str, Any]]] = [
        ("new", 7000, small), ("overwriting", None, small | {"keep": 1}), ("resumed", 7000, small | {"iterations": 3}),
    ]  # fmt: skip
    for number in itertools.count():
        if number < len(plans):
            case, most, asked = plans[number]
        else:
            case, most = dice.choice(("new", "overwriting", "resumed")), dice.choice((None, 3000, 4096, 8192))
            asked = {
                "keep": dice.randint(1, 3),
                "iterations": dice.randint(2, 4),
                "optimizer": dice.choice(("lbfgs", "gd", "klbfgs")),
            }
            asked["options"] = {} if asked["optimizer"] == "gd" else {"history": 2}
        here = place / str(number)
        counted = losses(recorded := trained(here, data, case, most, **asked), here, data, dice)
        assert not counted["lost"], f"{case}, {most} bytes a write, {asked}: {dict(counted)}"
        if number < 2:  # The model can tell: without either fsync something is lost.
            for folder in (False, True):
                without = losses(recorded.without("fsync", folder), here, data, dice, resumes=0, enough=5)
                assert without["lost"], f"nothing is lost without the fsync of {'the folder' if folder else 'files'}"
                counted["lost without an fsync"] += without["lost"]
        shutil.rmtree(here)
        yield counted
