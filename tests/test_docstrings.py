"""Examples in docstrings: every public name has one, and it is true."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from running import ROOT

import gpubp

METHODS = ("Network.pack", "Network.unpack", "Model.predict", "Model.predict_proba")


def named(dotted: str) -> Any:
    """What `gpubp.a.b` is: a module's name, or a module; None where there is no such thing."""
    module, _, name = dotted.rpartition(".")
    with contextlib.suppress(ImportError, AttributeError):
        return getattr(import_module(module), name)
    with contextlib.suppress(ImportError):
        return import_module(dotted)
    return None


def public() -> dict[str, Any]:
    """What `gpubp.__all__`, the README and the reference of the documentation name, as far as it can be called."""
    text = (ROOT / "README.md").read_text()
    names = {f"gpubp.{name}" for name in gpubp.__all__ if not name.startswith("__")}
    names |= {name for name in re.findall(r"\bgpubp(?:\.[A-Za-z_]\w*)+", text) if callable(named(name))}
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        shown = re.findall(r"^::: (\S+)", page.read_text(), re.M)
        assert shown and all(named(name) is not None for name in shown)
        names |= {name for name in shown if callable(named(name)) and not isinstance(named(name), type)}
    found = {name: named(name) for name in sorted(names)}
    for method in METHODS:
        owner, _, name = method.partition(".")
        found[f"gpubp.{method}"] = getattr(getattr(gpubp, owner), name)
    return found


PUBLIC = public()


def test_what_is_public_is_found():
    expected = {"gpubp.train", "gpubp.Model", "gpubp.explain.explain", "gpubp.report.report", "gpubp.Network.pack"}
    assert expected <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name == "gpubp.report.report":
        pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={})
    assert any(test.examples for test in tests), f"{name} has no example: give it one"
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test, out=said.write)
    assert not runner.failures, said.getvalue()
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"run", "model.npz"}, f"the example leaves {left}"
