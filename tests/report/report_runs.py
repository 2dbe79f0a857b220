"""Small runs to report on."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from in_process import ran
from running import Result, write

from gpubp.data.demo import demo_file

PLAIN = ("--kernel", "numpy")  # for so few rows nothing is worth compiling


def done(*arguments: object) -> Result:
    """A command that ends well."""
    result = ran(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def digits(folder: Path) -> tuple[Path, Path]:
    """A run like the demo's, on 400 rows; and its data, with 300 test rows."""
    with h5py.File(demo_file()) as file:
        rows = {f"{split}__{name}": file[split][name][:m] for split, m in (("train", 400), ("test", 300))
                for name in ("X", "y")}  # fmt: skip
    data, run = write(folder / "digits.h5", **rows), folder / "digits"
    done("train", data, "--out", run, "--hidden", "12", "--cost", "logistic", "--iterations", "25", *PLAIN)
    return run, data


def numbers(folder: Path) -> tuple[Path, Path]:
    """A regression with two outputs, of which every fourth row is held out; and its data."""
    rng = np.random.default_rng(11)
    X = rng.normal(size=(600, 4)).astype(np.float32)
    y = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], axis=1) + 0.1 * rng.normal(size=(600, 2))
    data, run = write(folder / "numbers.h5", X=X, y=y), folder / "numbers"
    done(
        "train",
        data,
        "--out",
        run,
        "--hidden",
        "8",
        "--iterations",
        "30",
        "--validation",
        "0.25",
        "--lambda",
        "0.1",
        *PLAIN,
    )
    return run, data
