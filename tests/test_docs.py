"""What documents show is run."""

from __future__ import annotations

import doctest
import re

from running import ROOT

import gpubp.api


def test_the_examples_of_the_python_door():
    found = doctest.testmod(gpubp.api)
    assert found.attempted > 3 and not found.failed


def test_the_readme_shows_the_python_door_as_it_is(tmp_path, monkeypatch):
    """The README's Python block, run as it stands, after the lines that make its T1, T2, X, y and data.h5."""
    import h5py
    import numpy as np

    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code
    rng = np.random.default_rng(0)
    with h5py.File("data.h5", "w") as file:
        file["X"], file["y"] = rng.normal(size=(50, 2)), np.arange(50) % 4
    known = {"T1": np.ones((2, 3)), "T2": np.ones((4, 3)), "X": rng.normal(size=(6, 2)), "y": np.arange(6) % 4}
    names = dict(known)
    exec(code[1], names)
    assert names["J"] > 0 and [D.shape for D in (names["D1"], names["D2"])] == [(2, 3), (4, 3)]
    assert names["model"].predict(known["X"]).shape == (6,)
