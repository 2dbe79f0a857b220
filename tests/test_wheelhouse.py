"""scripts/make_wheelhouse: which packages it takes, what it asks of pip; with GPUBP_FULL=1 the whole of it, offline."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "make_wheelhouse"
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("scripts_make_wheelhouse", str(SCRIPT))
    spec = importlib.util.spec_from_loader("scripts_make_wheelhouse", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def versions(script: ModuleType, *extras: str, **machine: str) -> dict[str, str]:
    chosen = script.select(LOCK, set(extras), script.environment(machine.get("python"), machine.get("platform")))
    return {name: entry["version"] for name, entry in chosen.items()}


def test_it_needs_the_standard_library_alone():
    tree = ast.parse(SCRIPT.read_text())
    imported = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names and SCRIPT.stat().st_mode & 0o111


def test_the_base_is_three_packages_at_the_versions_of_the_lock(script):
    locked = {(one["name"], one.get("version")) for one in LOCK["package"]}
    newer, older = versions(script, python="3.13"), versions(script, python="3.11")
    assert set(newer) == set(older) == {"numpy", "h5py", "click"}
    assert set(newer.items()) | set(older.items()) <= locked and newer["numpy"] != older["numpy"]


def installed_closure(*names: str) -> set[str]:
    """What these need here, as their own metadata say: the lock is not asked."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := canonicalize_name(waiting.pop())) not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize(
    ("extra", "asked"),
    [
        ("cpu", ["numba"]),
        ("plot", ["matplotlib"]),
        ("formats", ["pyarrow"]),
        ("sklearn", ["scikit-learn"]),
        ("export", ["onnx", "safetensors"]),
    ],
)
def test_an_extra_brings_all_that_it_needs(script, extra, asked):
    try:
        wanted = installed_closure("numpy", "h5py", "click", *asked)
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    assert set(versions(script, extra)) == wanted


def markers(lock: Any) -> set[str]:
    if isinstance(lock, dict):
        return (
            {lock["marker"]} & {lock.get("marker")} if "marker" in lock else set().union(*map(markers, lock.values()))
        )
    return set().union(*map(markers, lock)) if isinstance(lock, list) else set()


def test_markers_are_read_as_packaging_reads_them(script):
    pythons = ("3.11.2", "3.11.5", "3.12.0", "3.12", "3.14")
    tags = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")
    machines = [script.environment(python, tag) for python in pythons for tag in tags]
    machines.append(machines[0] | {"sys_platform": "darwin", "platform_machine": "arm64"})
    texts = {text for text in markers(LOCK) if "extra" not in text}
    assert len(texts) > 8
    texts |= {f"python_full_version {sign} '{version}'" for sign in ("==", "!=", "<", "<=", ">", ">=")
              for version in ("3.11.5", "3.12")}  # fmt: skip
    for text in texts:
        for machine in machines:
            assert script.holds(text, machine) == Marker(text).evaluate(machine), (text, machine)  # pyright: ignore
    here = script.environment()
    assert {name: value for name, value in default_environment().items() if name in here} == here


def test_cuda_brings_its_toolkit_and_other_machines_other_packages(script):
    cuda = versions(script, "cuda13", python="3.12", platform="manylinux_2_28_x86_64")
    assert "cupy-cuda13x" in cuda and any(name.startswith("nvidia-") for name in cuda) and "cupy-cuda12x" not in cuda
    assert "mkl" in versions(script, "mkl", platform="manylinux_2_28_x86_64")
    assert "mkl" not in versions(script, "mkl", platform="manylinux_2_28_aarch64")


@pytest.mark.parametrize(("arguments", "line"), [
    (["--extras", "gpu"], "--extras gpu; wanted some of codecs, cpu, "),
    (["--extras", "cuda12,cuda13"], "--extras cuda12 and cuda13, which cannot be installed beside each other"),
    (["--python", "2"], "--python 2; wanted a version such as 3.12"),
    (["--platform", "windows"], "--platform windows; wanted a tag such as manylinux_2_28_x86_64"),
    (["--out", "full"], "full is not empty; wanted a new folder"),
])  # fmt: skip
def test_what_cannot_be_meant_is_one_line(script, arguments, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    monkeypatch.setattr(script, "pip", lambda *arguments: pytest.fail("pip was asked"))
    assert script.main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"gpubp: error: {line}") and errors.count("\n") == 1
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/kept"]


def test_wheels_are_loaded_by_hash_and_listed_with_theirs(script, tmp_path, monkeypatch, capsys):
    asked: list[list[str]] = []

    def pip(*arguments: Any) -> None:
        asked.append(list(map(str, arguments)))
        if arguments[0] == "download":
            asked.append(Path(arguments[-1]).read_text().split())
            for name, version in versions(script, platform="manylinux_2_28_aarch64", python="3.12").items():
                (tmp_path / "w" / f"{name}-{version}-py3-none-any.whl").write_bytes(name.encode())
        else:
            (tmp_path / "w" / "gpubp-0.0-py3-none-any.whl").write_bytes(b"gpubp")

    monkeypatch.setattr(script, "pip", pip)
    out = ["--out", str(tmp_path / "w"), "--platform", "manylinux_2_28_aarch64", "--python", "3.12"]
    assert script.main(out) == 0
    download, locked, wheel = asked
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(download) and wheel[-1] == str(ROOT)
    tags = [download[i + 1] for i, word in enumerate(download) if word == "--platform"]
    assert tags[0] == "manylinux_2_28_aarch64" and {"manylinux_2_17_aarch64", "manylinux2014_aarch64"} < set(tags)
    assert download[download.index("--python-version") + 1] == "3.12"
    numpy = next(e for e in LOCK["package"] if f"numpy=={e.get('version')}" in locked)
    assert {f"--hash={one['hash']}" for one in numpy["wheels"]} <= set(locked)
    written = (tmp_path / "w" / "requirements.txt").read_text()
    assert f"gpubp==0.0 \\\n    --hash=sha256:{hashlib.sha256(b'gpubp').hexdigest()}\n" in written
    assert len(re.findall("^[a-z]", written, re.M)) == 4
    assert capsys.readouterr().out.endswith("there: pip install --no-index --find-links w gpubp\n")


def offline() -> list[str]:
    """A prefix that takes the network away from a command, where this machine lets us."""
    for prefix in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    return []


@pytest.mark.skipif("GPUBP_FULL" not in os.environ, reason="loads 90 MB of packages; GPUBP_FULL=1 has it done")
@pytest.mark.slow
def test_a_wheelhouse_installs_and_runs_without_a_network(tmp_path):
    """Made here, installed into a new environment and run with neither a network nor any setting of pip's."""

    def run(*command: object) -> str:
        bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
        bare["PIP_INDEX_URL"] = "http://127.0.0.1:9"  # where no network can be taken away, no index answers
        line = [*offline(), *map(str, command)]
        done = subprocess.run(line, cwd=tmp_path, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = subprocess.run([sys.executable, SCRIPT, "--extras", "cpu", "--out", tmp_path / "w"], capture_output=True)
    assert made.returncode == 0, made.stderr
    run(sys.executable, "-m", "venv", "v")
    run("v/bin/pip", "install", "--no-index", "--find-links", "w", "--require-hashes", "-r", "w/requirements.txt")
    assert "already satisfied: gpubp" in run("v/bin/pip", "install", "--no-index", "--find-links", "w", "gpubp[cpu]")
    assert "accuracy" in run("v/bin/gpubp", "demo")
    assert "compiled" in run("v/bin/gpubp", "info")
