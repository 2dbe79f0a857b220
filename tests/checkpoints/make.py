"""Makes the checkpoints of earlier versions that lie here; run from a checkout with its history, as

    python tests/checkpoints/make.py

Each version is taken out of the history by its commit, trains in a process of its own through its own command line,
is stopped by a limit of iterations, and says what it predicts; then it goes on to a later iteration and says which cost
it has there. The checkpoint of the first stop is kept as NAME.h5, what it must read as in expected.json. Nothing of the
product at hand takes part, and a file that is there already is never made anew: a version's file is its own for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HERE = Path(__file__).parent
STOP, END = 5, 12  # iterations: of the checkpoint, of the run that went on
GIVEN = ("--hidden", "3", "--seed", "7", "--precision", "fp64", "--lambda", "0.5")

# name: the commit, what is trained on, and the options besides GIVEN
VERSIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # the first version with checkpoints
    "first-lbfgs": ("9b2c386", "classes.h5", ("--optimizer", "lbfgs")),
    "first-gd": ("9b2c386", "classes.h5", ("--optimizer", "gd")),
    # the first version whole
    "whole-validation": ("8af1d23", "classes.h5", ("--optimizer", "lbfgs", "--validation", "0.2")),
    # compiled passes, and other BLAS
    "compiled-lbfgs": ("95a34f9", "classes.h5", ("--optimizer", "lbfgs")),
    "compiled-numpy": ("95a34f9", "classes.h5", ("--optimizer", "lbfgs", "--kernel", "numpy", "--activation", "tanh")),
    # precisions with a name each, and climbs
    "climbs-lbfgs": ("4f47ced", "classes.h5", ("--optimizer", "lbfgs", "--kernel", "numpy")),
    "climbs-gd": ("4f47ced", "classes.h5", ("--optimizer", "gd", "--no-climb")),
    # selections, missing values, class weights
    "rows-missing": (
        "13ace8f", "gaps.h5", ("--optimizer", "lbfgs", "--missing", "mean", "--class-weight", "balanced"),
    ),
    "rows-select": ("13ace8f", "classes.h5", ("--optimizer", "lbfgs", "--select", "columns=0,2:4")),
    # stopping, early stopping with the best Θ kept, the first klbfgs
    "stopping-early": (
        "53a8967", "classes.h5",
        ("--optimizer", "lbfgs", "--validation", "0.3", "--patience", "30", "--lambda", "0", "--hidden", "8"),
    ),
    "stopping-klbfgs": ("53a8967", "classes.h5", ("--optimizer", "klbfgs")),
    # all optimizers as the first format of checkpoints had them last
    "last-klbfgs": ("4e8c19d", "classes.h5", ("--optimizer", "klbfgs")),
    "last-early": (
        "4e8c19d", "classes.h5",
        ("--optimizer", "klbfgs", "--validation", "0.3", "--patience", "30", "--lambda", "0", "--hidden", "8"),
    ),
    "last-regression": ("4e8c19d", "numbers.h5", ("--optimizer", "cg", "--kernel", "numpy")),
    "last-adam": ("4e8c19d", "classes.h5", ("--optimizer", "adam")),
}  # fmt: skip


def main() -> None:
    """Make what is not there yet."""
    for name, datasets in data().items():
        if not (HERE / name).exists():
            with h5py.File(HERE / name, "w", libver=("v110", "v110")) as file:
                for path, values in datasets.items():
                    file.create_dataset(path, data=values, track_times=False)
    known: dict[str, Any] = (
        json.loads((HERE / "expected.json").read_text()) if (HERE / "expected.json").exists() else {}
    )
    for name in VERSIONS:
        if name not in known:
            known[name] = made(name)
            (HERE / "expected.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
            print(name, known[name])


def data() -> dict[str, dict[str, np.ndarray]]:
    """The data files: 40 rows of 4 features in three classes that overlap; with gaps; with numbers to be hit."""
    dice = np.random.default_rng(11)
    y = dice.integers(0, 3, 40)
    X = (dice.normal(size=(40, 4)) + dice.normal(size=(3, 4))[y]).astype(np.float32)
    gaps = X.copy()
    gaps[3, 1] = gaps[17, 0] = gaps[18, 0] = np.nan
    return {
        "classes.h5": {"X": X, "y": np.array([1, 2, 10])[y]},
        "gaps.h5": {"X": gaps, "y": np.array([1, 2, 10])[y]},
        "numbers.h5": {"X": X, "y": X @ np.float32([1, -2, 0.5, 0]) + np.sin(X[:, 0])},
    }


def made(name: str) -> dict[str, Any]:
    """Train with the version of `name`, keep its checkpoint, and say what it is."""
    commit, file, options = VERSIONS[name]
    with tempfile.TemporaryDirectory(prefix="gpubp-") as folder:
        place = Path(folder)
        archive = subprocess.run(
            ["git", "archive", commit, "gpubp"], cwd=HERE.parent.parent, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        with h5py.File(HERE / file) as source, h5py.File(place / "two.h5", "w") as two:
            (place / file).write_bytes((HERE / file).read_bytes())
            two["X"] = source["X"][:2]

        def gpubp(*arguments: object) -> Any:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": folder}
            command = [sys.executable, "-m", "gpubp", "-q", *map(str, arguments), "--json"]
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            return json.loads(done.stdout)

        gpubp("train", file, "--out", "run", *GIVEN, *options, "--iterations", STOP)
        kept = (place / "run" / f"checkpoint-{STOP:08d}.h5").read_bytes()
        gpubp("predict", "run", "two.h5", "-o", "answer.h5", "--precision", "fp64")
        end = gpubp("resume", "run", "--iterations", END)
        (HERE / f"{name}.h5").write_bytes(kept)
        with h5py.File(HERE / f"{name}.h5") as checkpoint, h5py.File(place / "answer.h5") as answer:
            Theta = [checkpoint[f"Theta/Theta{l}"][()] for l in range(1, len(checkpoint["Theta"]) + 1)]
            row = dict(
                zip(json.loads(checkpoint["history_columns"][()]), checkpoint["history"][-1].tolist(), strict=True)
            )
            return {
                "commit": commit,
                "command": " ".join(("gpubp train", file, *GIVEN, *options, "--iterations", str(STOP))),
                "data": file,
                "iteration": STOP,
                "J": row["J"].hex(),
                "shapes": [list(matrix.shape) for matrix in Theta],
                "digest of Theta": hashlib.sha256(b"".join(matrix.tobytes() for matrix in Theta)).hexdigest(),
                "digest of the file": hashlib.sha256(kept).hexdigest(),
                "prediction": answer["prediction"][()].tolist(),
                "probability": answer["probability"][()].tolist() if "probability" in answer else None,
                "end": {"iteration": END, "J": end["cost"], "iterations": end["iterations"]},
            }


if __name__ == "__main__":
    main()
