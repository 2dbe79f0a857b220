"""Checkpoints are damaged in every byte, at every length, and in thousands of other ways, and given to the commands.

A loss is: damage that `read` or `verify` does not notice, or notices only after libhdf5 has seen the file; damage of a
leaf that is not named where the header is whole; a command that crashes, hangs, shows a traceback, leaves with another
code than 0, 2 or 3, or says its error in no or in several lines; or, with a sound checkpoint beside the damaged one, a
`resume` or `predict` that does not take it or does not name the other.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
from child import HUNG, Ended, each_in_child, in_child
from faults import run_here
from tinyrun import command, data_in

from gpubp.checkpoint import guard, read, verify
from gpubp.errors import CheckpointError

WHAT = "checkpoints damaged in every byte, and mutants given to the commands"
SHORT = 3
_SECONDS = 20  # a command that takes longer hangs
_EACH = 100  # mutants a round


def unnoticed(path: Path, content: bytes, what: str, leaf: str = "") -> str:
    """Why this damage is a loss; "" if it is noticed as it must be, by both ways of looking."""
    path.write_bytes(content)
    for look in (verify, read):
        try:
            look(path)
        except CheckpointError as error:
            words = str(error)
            if type(error) is not CheckpointError or str(path) not in words or "\n" in words:
                return f"{what}: {type(error).__name__}: {words}"
            if leaf and leaf not in words:
                return f"{what}, in {leaf}: not named: {words}"
        except BaseException as error:
            return f"{what}: {type(error).__name__}: {error}"
        else:
            return f"{what}: not noticed by {look.__name__}"
    return ""


def no_parser() -> Any:
    """Inside, reaching libhdf5 is a loss."""
    return patch.object(h5py, "File", side_effect=AssertionError("libhdf5 was given a damaged file"))


def leaves(sound: bytes) -> list[tuple[int, int, str]]:
    """Where the bytes of each leaf begin and end in the file, and its path: as HDF5 has it, not the table."""
    found: list[tuple[int, int, str]] = []

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.size:
            begin, length = item.id.get_offset(), item.id.get_storage_size()
            assert sound[begin : begin + length] == item[()].tobytes() if item.dtype.kind != "S" else True, path
            found.append((begin, begin + length, path))

    with h5py.File(io.BytesIO(sound), "r") as file:
        file.visititems(note)
    assert len(found) > 10
    return found


def flips(sound: bytes, path: Path, step: int = 1, begin: int = 0, end: int | None = None) -> Counter[str]:
    """Every byte, or each `step`-th of some, in three ways."""
    where = {i: leaf for first, last, leaf in leaves(sound) for i in range(first, last)}
    counted = Counter[str]()
    with no_parser():
        for i in range(begin, len(sound) if end is None else end, step):
            for x in (0x01, 0x80, 0xFF):
                damaged = sound[:i] + bytes([sound[i] ^ x]) + sound[i + 1 :]
                lost = unnoticed(path, damaged, f"byte {i} ^ {x:#x}", where.get(i, ""))
                assert not lost, lost
                counted["flips"] += 1
                counted["flips named by their leaf"] += i in where
    return counted


def lengths(sound: bytes, path: Path, step: int = 1, begin: int = 0) -> Counter[str]:
    """Every truncation, and bytes at the end."""
    with no_parser():
        for n in range(begin, len(sound), step):
            lost = unnoticed(path, sound[:n], f"cut to {n}")
            assert not lost, lost
        longer = [bytes(n) for n in (1, 2, 8, 511, 512, 4096)] + [sound[:1], sound[:512], sound]
        for more in longer:
            lost = unnoticed(path, sound + more, f"longer by {len(more)}")
            assert not lost, lost
    return Counter({"lengths": len(range(begin, len(sound), step)) + len(longer)})


# Mutants --------------------------------------------------------------------------------------------------------------


LEAST = 1024  # bytes of a user block with a table


def resealed(image: bytes) -> bytes:
    """The same with the digests that it should have, as far as the product can make them."""
    copy = bytearray(image.ljust(LEAST, b"\0"))
    guard.seal(memoryview(copy))
    return bytes(copy)


def _flipped(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    image = bytearray(sound)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        image[dice.randrange(len(image))] ^= 1 << dice.randrange(8)
    return bytes(image)


def _structured(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    """Where HDF5 keeps its own affairs: near signatures; with lengths and addresses that cannot be."""
    image = bytearray(sound)
    marks = [i for sign in (b"OHDR", b"TREE", b"HEAP", b"SNOD", b"OCHK", b"FRHP", b"\x89HDF", b"BTHD")
             for i in _all(sound, sign)]  # fmt: skip
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = (dice.choice(marks) if marks else 512) + dice.randrange(0, 200)
        size = dice.choice((1, 2, 4, 8))
        value = dice.choice((0, 1, 255, 65535, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(sound), dice.getrandbits(64)))
        image[at : at + size] = (value % 256**size).to_bytes(size, "little")
    return bytes(image[: len(sound)])


def _all(content: bytes, sign: bytes) -> Iterator[int]:
    at = content.find(sign)
    while at >= 0:
        yield at
        at = content.find(sign, at + 1)


def _cut(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    return sound[: dice.randrange(len(sound))]


def _spliced(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    begin, size = dice.randrange(len(sound)), dice.choice((8, 64, 512, 4096))
    begin_there = dice.choice((begin, dice.randrange(len(other))))
    return sound[:begin] + other[begin_there : begin_there + size] + sound[begin + size :]


def _zeroed(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    begin = dice.randrange(0, len(sound), 512)
    size = dice.choice((512, 4096))
    return sound[:begin] + bytes(min(size, len(sound) - begin)) + sound[begin + size :]


def _swapped(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    """Another run's file under this name, or the header of one before the rest of the other."""
    return other if dice.random() < 0.3 else other[:512] + sound[512:]


_TYPES = ("f8", "f4", "i8", "?", "u1", "c16")
_TEXTS = ("{", "[]", "null", "1e999", '{"a": NaN}', "[" * 5000, '{"sizes": [2, -1]}', '"x"')
_EDITS = (
    ("1", "-1"), ('"', "'"), ("2", "99999999999"), ("null", "[]"), ("true", "{}"), ("lbfgs", "nobody"),
    ("sigmoid", "x"),
)  # fmt: skip


def _changed_leaf(sound: bytes, other: bytes, dice: random.Random) -> bytes:
    """An HDF5 library's own change: another shape, type, value, link or storage of a leaf, or one more or fewer."""
    image = io.BytesIO(sound)
    with h5py.File(image, "r+") as file:
        paths: list[str] = []
        file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
        path = dice.choice(paths)
        old: Any = file[path][()]
        numbers = np.asarray(old).dtype.kind in "biuf"
        new: list[dict[str, Any]] = [
            {"data": np.zeros(dice.choice([(), (0,), (3,), (2, 2), (1, 2, 3)]), dice.choice(_TYPES))},
            {"data": h5py.Empty("f8")}, {"shape": (2**40, 2), "dtype": "f8"},
            {"data": np.zeros((9, 2)), "chunks": (3, 2)}, {"data": _text(dice.choice(_TEXTS))},
        ]  # fmt: skip
        if numbers:
            values = dice.choice((np.nan, np.inf, -1, 0, 2**62, 1e300))
            with np.errstate(all="ignore"):
                new += [{"data": np.full_like(np.asarray(old, np.float64), values)}] * 3
                if np.asarray(old).dtype.kind == "i":
                    new.append({"data": np.int64(dice.choice((-(2**63), -1, 0, 2**63 - 1)))})
        else:
            text = old.decode(errors="replace") if isinstance(old, bytes) else "{}"
            at = dice.randrange(max(1, len(text)))
            edited = dice.choice([text[:at] + text[at + 1 :], *(text.replace(old, new) for old, new in _EDITS)])
            new += [{"data": _text(edited)}] * 6
        del file[path]
        if dice.random() < 0.9:
            file.create_dataset(path, **dice.choice(new))
        if dice.random() < 0.1:
            file[dice.choice(("more", "Theta/Theta9", "optimizer/state/more", "stopping/J"))] = h5py.SoftLink("/Theta")
    return image.getvalue()


def _text(words: str) -> Any:
    return np.array(words.encode(), h5py.string_dtype("utf-8", max(1, len(words.encode()))))


_MAKE: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    _flipped, _structured, _cut, _spliced, _zeroed, _swapped, _changed_leaf,
)  # fmt: skip


def mutant(sound: bytes, other: bytes, dice: random.Random) -> tuple[str, bytes]:
    """What was done, and the file."""
    make = dice.choice((*_MAKE, _changed_leaf, _structured))
    image = make(sound, other, dice)
    seal = make in (_structured, _changed_leaf) or dice.random() < 0.4
    return make.__name__.strip("_") + ("" if not seal else ", sealed"), resealed(image) if seal else image


_KINDS: dict[str, Callable[[Path], Any]] = {  # no checkpoint at all
    "an empty file": lambda path: path.write_bytes(b""),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 99),
    "a link": lambda path: path.symlink_to("/etc/hostname"),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a loop": lambda path: path.symlink_to(path.name),
    "a FIFO": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "HDF5 of others": lambda path: h5py.File(path, "w").close(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


_COMMANDS = ("resume", "predict", "evaluate", "info", "verify")


class Trial:
    """A run folder, the commands, and what they must not do."""

    def __init__(self, place: Path, dice: random.Random) -> None:
        self._dice, self._place = dice, place
        self.data = data_in(place / "data")
        self.first, self.second = place / "first", place / "second"
        for run, optimizer in ((self.first, "lbfgs"), (self.second, "gd")):
            arguments = command(self.data, run, iterations=2, keep=9)
            arguments[arguments.index("lbfgs")] = optimizer
            if optimizer == "gd":
                at = arguments.index("--set")
                del arguments[at : at + 2]
            done = in_child(lambda arguments=arguments: run_here(arguments))
            assert done.code == 0, done.errors
        self.name = "checkpoint-00000002.h5"
        self.sound = (self.first / self.name).read_bytes()
        self.other = (self.second / self.name).read_bytes()

    def tried(self, mutants: Sequence[tuple[str, str, Callable[[Path], Any]]]) -> Counter[str]:
        """Each command on each file: (command, what was done, how it is laid)."""
        counted, works, told = Counter[str](), [], []
        for number, (name, what, put) in enumerate(mutants):
            run, alone = self._place / f"run-{number}", self._dice.random() < 0.5
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            if not alone:
                shutil.copy(self.first / "checkpoint-00000001.h5", run)
            put(run / self.name)
            works.append(partial(self._ran, name, run, alone))
            told.append((name, what, run, alone))
        for done, (name, what, run, alone) in zip(each_in_child(works, _SECONDS), told, strict=True):
            lost = _harm(done, may_fail=name == "resume" and "sealed" in what)
            if lost:
                kept = run.parent.parent / f"gpubp-mutant-{os.getpid()}.h5"
                if (run / self.name).is_file():
                    shutil.copy(run / self.name, kept)
                beside = "alone" if alone else "beside a sound one"
                raise AssertionError(f"{name} of {what} ({beside}): {lost}; it is kept as {kept}")
            counted["mutants"] += 1
            counted[f"exit {done.code}"] += 1
            shutil.rmtree(run)
        return counted

    def _ran(self, name: str, run: Path, alone: bool) -> Ended:
        """In the child: the command, and with a sound checkpoint beside the damaged one whether that was taken."""
        answer = run.parent / "answer.h5"
        arguments = {
            "resume": [str(run), "--iterations", "3", "--inexact", "--threads", "1"],
            "predict": [str(run), str(self.data), "-o", str(answer), "--overwrite", "--backend", "cpu"],
            "evaluate": [str(run), str(self.data), "--backend", "cpu"],
            "info": [str(run / self.name)],
            "verify": [str(run / self.name)],
        }[name]
        rejected = not alone and _rejected(run / self.name)
        done = run_here([name, *arguments])
        if rejected and name in ("resume", "predict") and not done.traceback:
            if done.code:
                return done._replace(errors=f"Traceback: none, but the sound one is not taken: {done.errors}")
            if f"{self.name} is damaged and was passed over" not in done.errors:
                return done._replace(errors=f"Traceback: none, but the damaged one is not named: {done.errors}")
        return done


def _rejected(path: Path) -> bool:
    """Whether the file is one that is to be passed over: not sound, and not of another format."""
    if path.is_dir():
        return False
    try:
        read(path)
    except CheckpointError as error:
        return type(error) is CheckpointError
    return False


def _harm(done: Ended, *, may_fail: bool) -> str:
    """What is wrong with how a command ended. `may_fail`: numbers that no digest guards may be none to train from."""
    if done.code == HUNG:
        return done.errors
    if done.traceback:
        return f"traceback: {done.errors}"
    if done.code == 1 and may_fail and "failed" in done.out and not done.error:
        return ""
    if done.code not in (0, 2, 3):
        return f"exit {done.code}: {done.errors}"
    if len(done.error) != (done.code != 0):
        return f"exit {done.code} with {len(done.error)} error lines: {done.errors}"
    return ""


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    """A sample of bytes and lengths, and mutants; then all bytes and all lengths; then mutants without an end."""
    trial = Trial(place, dice)
    path = place / trial.name
    sound, step = trial.sound, 29
    yield flips(sound, path, step, dice.randrange(step)) + lengths(sound, path, step, dice.randrange(step))
    yield trial.tried([(name, what, put) for what, put in _KINDS.items() for name in _COMMANDS])
    for number in itertools.count():
        mutants = []
        for _ in range(_EACH):
            what, image = mutant(trial.sound, trial.other, dice)
            mutants.append((dice.choice(_COMMANDS), what, partial(_written, image=image)))
        yield trial.tried(mutants)
        if number == 0:
            yield flips(sound, path)
            yield lengths(sound, path)


def _written(path: Path, image: bytes) -> None:
    path.write_bytes(image)
