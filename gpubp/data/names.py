"""What people call their datasets, and which rows belong together.

A dataset has a role by its name, X (`X`, `data`, `features`, `inputs`, `images`), y (`y`, `labels`, `targets`,
`outputs`) or sample weights (`w`, `weights`, `sample_weight`), and a split by a group above it (`train/X`), a
prefix (`train_X`) or a suffix (`X_train`). Case does not matter. `--x NAME` puts one name in place of the usual
ones: a whole path is taken as it is, any other name may still come with a split (`train/NAME`, `NAME_test`).

Rows outside every split count as training rows where there are splits at all (`X`, `X_test`). Two datasets that could
both be meant are an error that names them: the choice is the user's. Pure functions of names; no file is touched.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import DataError

Role = Literal["x", "y", "weights"]

_ROLES: dict[Role, str] = {
    "x": "x|data|features?|inputs?|images?",
    "y": "y|labels?|targets?|outputs?",
    "weights": "w|weights?|sample_weights?",
}
_SPLITS = {"train": "train|training", "val": "val|valid|validation", "test": "test|testing"}
_SPLIT = "|".join(_SPLITS.values())
_USUAL = "|".join(_ROLES.values())
CHECKSUMS = ".crc32"  # ends the name of a dataset that `convert` wrote beside another: its checksums
_SHOWN = 8
_OFFERED = 40  # of a table with more numeric fields, so many are offered


@dataclass(frozen=True)
class Names:
    """The datasets that make up one set of rows. `split` is None for rows outside every split."""

    x: str
    y: str | None
    weights: str | None
    split: str | None


def quoted(name: str) -> str:
    """A name from a file, fit for a message: on one line, not too long, nothing a terminal obeys."""
    text = name if len(name) <= 80 else name[:77] + "…"
    return f"'{text}'" if text.isprintable() else repr(text)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(quoted(name) for name in names[:_SHOWN]) or "nothing"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def own(paths: Collection[str]) -> list[str]:
    """The names in order, without those of checksums: what a user may have meant."""
    return sorted(path for path in paths if path.removesuffix(CHECKSUMS) not in paths or not path.endswith(CHECKSUMS))


def split_of(path: str) -> str | None:
    """The split that the name itself, or else the nearest group above it, speaks of."""
    *groups, leaf = path.split("/")
    named = re.fullmatch(rf"({_SPLIT})[-_. ].*|.*[-_. ]({_SPLIT})", leaf, re.IGNORECASE)
    glued = re.fullmatch(rf"({_SPLIT})(?:{_USUAL})|(?:{_USUAL})({_SPLIT})", leaf, re.IGNORECASE)
    for found in (named, glued, *(re.fullmatch(f"({_SPLIT})", group, re.IGNORECASE) for group in reversed(groups))):
        if found:
            word = next(filter(None, found.groups())).lower()
            return next(split for split, words in _SPLITS.items() if word in words.split("|"))
    return None


def role_of(path: str) -> Role | None:
    """The role a dataset has by its name, if it has one."""
    leaf = path.rpartition("/")[2]
    for role, usual in _ROLES.items():
        if re.fullmatch(rf"(?:(?:{_SPLIT})[-_. ]?)?(?:{usual})|(?:{usual})[-_. ]?(?:{_SPLIT})", leaf, re.IGNORECASE):
            return role
    return None


def field_options(table: str, fields: Sequence[str], x: Sequence[str]) -> str:
    """The options that name a table's fields: of `x` those that are not y or weights by their names, and these."""
    usual = {role: next((name for name in fields if role_of(name) == role), None) for role in ("y", "weights")}
    inputs = [name for name in x if name not in (usual["y"], usual["weights"], "index")][:_OFFERED]
    named = {"x": ",".join(inputs)} | {role: name for role, name in usual.items() if name}
    # names are whatever somebody wrote into the file: a shell must not read more out of them
    return " ".join(f"--{role} {shlex.quote(f'{table}[{name}]')}" for role, name in named.items())


def splits(paths: Collection[str], x: str | None = None) -> tuple[str, ...]:
    """Which of train, val and test the file has rows for; empty where all rows are one set."""
    if x in paths:
        return ()
    found = {split_of(path) for path in _candidates(paths, "x", x)}
    if found == {None}:
        return ()
    return tuple(split for split in _SPLITS if split in found or (split == "train" and None in found))


def choose(
    paths: Collection[str],
    file: str,
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    y_required: bool = True,
) -> Names:
    """The datasets of one set of rows.

    Args:
        paths: all names in the file, groups separated by ``/``.
        file: the file as the user named it, for messages.
        x, y, weights: names the user gave in place of the usual ones; ``weights="none"`` takes none, nor does
            ``y="none"`` where y is not required.
        split: "train", "val" or "test"; None takes the training rows, or all rows where there are no splits.
        y_required: whether a file without y is an error.

    Raises:
        DataError: a dataset is missing, or several could be meant.
    """
    there = splits(paths, x)
    if split is None and there and "train" not in there and len(there) > 1:
        raise DataError(f"{file} has {' and '.join(there)} rows but no train rows", do="say --x NAME")
    if split is not None and split not in there and x not in paths:
        held = f"it holds {' and '.join(there)} rows" if there else f"it holds {listed(own(paths))}"
        raise DataError(f"{file} has no {split} rows; {held}", wanted=f"{split}/X or X_{split}", do="or say --x NAME")
    if there and split is None:
        split = "train" if "train" in there else there[0]
    chosen = _one(paths, file, "x", x, split, beside=None)
    if chosen is None:
        raise _missing(paths, file, "x", x, split)
    if x in paths:
        split = split_of(chosen)  # a whole path brings its own split along
    unlabelled = not y_required and y is not None and y.lower() == "none"
    labels = None if unlabelled else _one(paths, file, "y", y, split, beside=chosen)
    if labels is None and not unlabelled and (y_required or y is not None):
        raise _missing(paths, file, "y", y, split)
    if weights is not None and weights.lower() == "none":
        return Names(chosen, labels, None, split)
    weighed = _one(paths, file, "weights", weights, split, beside=chosen)
    if weighed is None and weights is not None:
        raise _missing(paths, file, "weights", weights, split)
    return Names(chosen, labels, weighed, split)


def _candidates(paths: Collection[str], role: Role, forced: str | None) -> list[str]:
    if forced is None:
        return sorted(path for path in paths if role_of(path) == role)
    if forced in paths:
        return [forced]
    name = re.escape(forced)
    with_split = re.compile(rf"(?:(?i:{_SPLIT})[-_. ])?{name}|{name}[-_. ](?i:{_SPLIT})")
    return sorted(path for path in paths if with_split.fullmatch(path.rpartition("/")[2]))


def _one(
    paths: Collection[str], file: str, role: Role, forced: str | None, split: str | None, beside: str | None
) -> str | None:
    """The one dataset of a role in a split, None if there is none; those in the group of X come first."""
    found = _candidates(paths, role, forced)
    if forced not in paths:
        wanted = {"train", None} if split in (None, "train") else {split}
        found = [path for path in found if split_of(path) in wanted]
    if beside is not None and len(found) > 1:
        group = beside.rpartition("/")[0]
        found = [path for path in found if path.rpartition("/")[0] == group] or found
    if len(found) > 1:
        sort = {"x": "X", "y": "y", "weights": "sample weights"}[role]
        none = " or --weights none" if role == "weights" else ""
        raise DataError(f"{file}: {listed(found)} could each be {sort}", wanted="one", do=f"say --{role} NAME{none}")
    return found[0] if found else None


def _missing(paths: Collection[str], file: str, role: Role, forced: str | None, split: str | None) -> DataError:
    held = f"it holds {listed(own(paths))}"
    if forced is not None:
        return DataError(f"{file} has no dataset {quoted(forced)}; {held}", do=f"say another --{role} NAME")
    usual = {"x": "X, data, features, inputs or images", "y": "y, labels, targets or outputs", "weights": ""}[role]
    of = f" of the {split} rows" if split else ""
    return DataError(f"{file} has no {'X' if role == 'x' else 'y'}{of}; {held}", wanted=usual, do=f"say --{role} NAME")
