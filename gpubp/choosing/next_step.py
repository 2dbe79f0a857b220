"""The `gpubp train` line to go on with: what was asked, with what was chosen, ready to be typed."""

from __future__ import annotations

import os
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..job import Job

_NAMES = {"lambda_": "--lambda", "options": "--set"}
_ALWAYS = ("hidden", "lambda_", "iterations")  # said even where they are the default
_ELSEWHERE = ("data", "checkpoint_every", "keep")


def train_line(
    job: Job, decrease: float, out: str | Path | None, program: str = "gpubp", *, suffix: str = "-chosen"
) -> str:  # fmt: skip
    """The command that trains this job into a folder beside `out`; for arrays the call in Python.

    Args:
        decrease: the rule that ends a training; 0 for none.
        suffix: of that folder's name.
    """
    job = replace(job, decrease=decrease or None)
    if not job.files:
        asked = {one.name: getattr(job, one.name) for one in fields(job) if _differs(job, one.name)}
        return f"gpubp.train(X, y, {', '.join(f'{name}={value!r}' for name, value in asked.items())})"
    words = [program, "train", *(_path(file) for file in job.files), "--out", _path(_beside(out, suffix))]
    for one in fields(job):
        if one.name not in _ELSEWHERE and _differs(job, one.name):
            words += _option(one.name, getattr(job, one.name))
    return shlex.join(words)


def _differs(job: Job, name: str) -> bool:
    return name in _ALWAYS or (name not in _ELSEWHERE and getattr(job, name) != getattr(Job(), name))


def _option(name: str, value: Any) -> list[str]:
    option = _NAMES.get(name, "--" + name.replace("_", "-"))
    if name == "hidden":
        return [option, ",".join(map(str, value)) or "none"]
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if name == "options":
        return [word for key, one in value.items() for word in (option, f"{key}={one!r}")]
    if name == "class_weight" and isinstance(value, dict):
        value = ",".join(f"{label}={weight!r}" for label, weight in value.items())
    values = value if isinstance(value, tuple) else (value,)
    words: list[str] = []
    for one in map(_text, values):  # a value that begins with a dash would be taken for an option
        words += [f"{option}={one}"] if one.startswith("-") else [option, one]
    return words


def _text(value: Any) -> str:
    """A number as short as it can be said."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _beside(out: str | Path | None, suffix: str) -> str:
    return "RUN" if out is None else f"{os.fspath(out).rstrip('/')}{suffix}"


def _path(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path
