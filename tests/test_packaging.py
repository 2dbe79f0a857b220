"""What a fresh machine meets first: the description of the package, scripts/dev, the lock, the wheel, the image."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DESCRIPTION = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DESCRIPTION["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
DEV = ROOT / "scripts" / "dev"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def names(requirements: list[str]) -> set[str]:
    return {Requirement(line).name for line in requirements}


# --- the description and the lock -----------------------------------------------------------------------------------


def test_the_base_stays_three_packages() -> None:
    assert names(PROJECT["dependencies"]) == {"numpy", "click", "h5py"}


def test_the_version_needs_no_metadata() -> None:
    code = "import gpubp, sys; print(gpubp.__version__, 'importlib.metadata' in sys.modules)"
    out = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    version, metadata_read = out.stdout.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and metadata_read == "False"


def test_torch_is_asked_for_nowhere() -> None:
    asked = set().union(*(names(lines) for lines in EXTRAS.values()))
    locked = {package["name"] for package in LOCK["package"]}
    assert not (asked | locked) & {"torch", "pytorch"}


def test_the_lock_is_of_this_description() -> None:
    """uv.lock repeats what it was made from; a dependency changed without `uv lock` shows here."""
    dev = load_dev()
    described = {("", *split(line)) for line in PROJECT["dependencies"]}
    for extra in EXTRAS:
        lines = dev.requirements(DESCRIPTION, dev.with_inner_extras(DESCRIPTION, {extra}))
        described |= {(extra, *split(line)) for line in lines if line not in PROJECT["dependencies"]}
    own = next(package for package in LOCK["package"] if package["name"] == "gpubp")
    locked = set()
    for entry in own["metadata"]["requires-dist"]:
        extra = re.search(r"extra == '(\w+)'", entry.get("marker", ""))
        line = f"{entry['name']}{entry.get('specifier', '')}"
        locked.add((extra[1] if extra else "", *split(line)))
    assert locked == described


def split(line: str) -> tuple[str, str]:
    requirement = Requirement(line)
    return requirement.name, str(requirement.specifier)


def test_the_lock_names_public_addresses_only() -> None:
    addresses = set(re.findall(r"(?:https?|file|ssh)://[^/\"]*", (ROOT / "uv.lock").read_text()))
    assert addresses == {"https://pypi.org", "https://files.pythonhosted.org"}


# --- the wheel ------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_its_data_and_both_licences(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    build = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("gpubp-*.whl"))) as wheel:
        inside = set(wheel.namelist())
        info = next(name.split("/")[0] for name in inside if ".dist-info/" in name)
        metadata = wheel.read(f"{info}/METADATA").decode()
        commands = wheel.read(f"{info}/entry_points.txt").decode()
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("gpubp/**/*") if path.is_file()}
    sources = {path for path in sources if "__pycache__" not in path}
    assert {name for name in inside if ".dist-info/" not in name} == sources
    assert "gpubp/data/mnist10k.h5" in inside
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/gpubp/data/mnist10k.LICENSE.txt"} <= inside
    assert "License-Expression: MIT AND CC-BY-SA-3.0" in metadata
    assert "gpubp = gpubp.cli:main" in commands


# --- scripts/dev ----------------------------------------------------------------------------------------------------


def load_dev() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("scripts_dev", str(DEV))
    spec = importlib.util.spec_from_loader("scripts_dev", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/dev with an environment under tmp_path; its pip is a note in `dev.calls`."""
    monkeypatch.setenv("GPUBP_VENV", str(tmp_path / "venv"))
    monkeypatch.delenv("GPUBP_EXTRAS", raising=False)
    module = load_dev()
    module.calls = []  # type: ignore[attr-defined]

    def make_venv(lock: int) -> None:
        (module.VENV / "bin").mkdir()
        (module.VENV / "bin" / "python").touch()
        (module.VENV / "lib" / "python3" / "site-packages").mkdir(parents=True)

    monkeypatch.setattr(module, "make_venv", make_venv)
    monkeypatch.setattr(module, "run_pip", lambda arguments, lock: module.calls.append(arguments))
    return module


def run_dev(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEV), *arguments], env=os.environ | environment, capture_output=True, text=True
    )


def test_dev_needs_the_standard_library_alone_and_old_pythons_can_read_it() -> None:
    tree = ast.parse(DEV.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or ".").split(".")[0])
    assert imported <= sys.stdlib_module_names
    assert DEV.stat().st_mode & 0o111


def test_dev_sets_up_once_and_again_when_something_it_installs_changes(dev: ModuleType) -> None:
    dev.prepare(set())
    assert len(dev.calls) == 1 and set(dev.calls[0][-3:]) == set(PROJECT["dependencies"])
    assert (dev.VENV / "lib/python3/site-packages/gpubp-checkout.pth").read_text() == f"{ROOT}\n"
    dev.prepare(set())
    assert len(dev.calls) == 1, "a repeat installs nothing"
    dev.prepare({"test"})
    assert len(dev.calls) == 2 and any("cuda-nvrtc" in line for line in dev.calls[1]), "test brings nvrtc"
    dev.prepare({"nvrtc"})
    dev.prepare(set())
    assert len(dev.calls) == 2, "what it holds already is not installed again"
    state = json.loads(dev.STATE.read_text())
    dev.STATE.write_text(json.dumps(state | {"dependencies": "another pyproject.toml"}))
    dev.prepare(set())
    assert len(dev.calls) == 3 and any("pytest" in line for line in dev.calls[2]), "and it keeps what it held"


def test_dev_takes_no_half_made_environment_for_a_finished_one(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: list[str], lock: int) -> None:
        (dev.VENV / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dev, "run_pip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dev.prepare(set())
    assert (dev.VENV / "half").exists()
    dev.prepare(set())
    assert len(dev.calls) == 1 and not (dev.VENV / "half").exists(), "it is made again from nothing"


def test_dev_makes_an_environment_of_another_python_again(dev: ModuleType) -> None:
    dev.prepare({"plot"})
    (dev.VENV / "old").touch()
    state = json.loads(dev.STATE.read_text())
    dev.STATE.write_text(json.dumps(state | {"python": "3.9"}))
    dev.prepare(set())
    assert not (dev.VENV / "old").exists() and any("matplotlib" in line for line in dev.calls[-1])


def test_dev_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run_dev("demo", GPUBP_VENV=str(tmp_path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"gpubp: {tmp_path} was not made by scripts/dev; remove it, or name another with GPUBP_VENV\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_dev_refuses_extras_that_do_not_exist_or_exclude_each_other(tmp_path: Path) -> None:
    environment = str(tmp_path / "venv")
    done = run_dev("demo", GPUBP_VENV=environment, GPUBP_EXTRAS="cuda11")
    assert done.returncode == 1
    assert done.stderr.startswith("gpubp: GPUBP_EXTRAS names cuda11; wanted some of codecs, cpu, ")
    for extras, word in (("cuda12,cuda13", "demo"), ("cuda12", "test")):
        done = run_dev(word, GPUBP_VENV=environment, GPUBP_EXTRAS=extras)
        assert done.returncode == 1 and "cannot share the environment" in done.stderr
    assert not Path(environment).exists()


def test_dev_installs_the_versions_of_the_lock(dev: ModuleType) -> None:
    lines = dev.locked_versions(DESCRIPTION)
    here = [Requirement(line) for line in lines]
    pins = {pin.name: pin for pin in here if pin.marker is None or pin.marker.evaluate()}
    assert names(PROJECT["dependencies"]) <= set(pins)
    assert len(pins) == sum(pin.marker is None or pin.marker.evaluate() for pin in here), "one version a package"


def test_the_readme_names_both_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "python3 scripts/dev demo" in readme and "python3 scripts/dev test" in readme


# --- the image ------------------------------------------------------------------------------------------------------


def test_both_stages_stand_on_one_plain_base() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.M) == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert re.search(r"^ARG BASE_IMAGE=docker\.io/library/debian:\w+-slim$", DOCKERFILE, re.M)


def test_the_image_runs_as_a_numbered_user_and_caches_below_tmp() -> None:
    image = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", image, re.M) == ["10001:10001"]  # numbers: Kubernetes checks runAsNonRoot by them
    caches = dict(re.findall(r"(\w*(?:CACHE\w*|HOME|CONFIGDIR))=(\S+)", image))
    assert {"HOME", "CUPY_CACHE_DIR", "NUMBA_CACHE_DIR"} <= set(caches)
    assert all(path.startswith("/tmp/") for path in caches.values())
    assert "tmpfs: [/tmp]" in (ROOT / "docker" / "compose.yaml").read_text()


def test_the_build_sees_what_the_dockerfile_copies_and_no_more() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M)
    allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert sorted(name for line in copied for name in line.split()) == sorted(allowed)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
