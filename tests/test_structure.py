"""The house stays a house: imports point down, nothing happens at import, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gpubp"

# DESIGN: cli → report, explain → training, inference → optimizers | checkpoint | objective → backprop, data → network →
# activation, cost → formula, backend, communicator → errors. A room may import rooms of its own floor or below.
FLOORS = [
    {"errors", "affinity", "counter_hash", "precision", "pictures", "canvas", "tangent", "chart"},
    {"formula", "trace", "tree", "communicator"},
    {"backend"},
    {"activation", "cost"},
    {"network"},
    {"backprop", "data"},
    {"feed"},
    {"factors"},
    {"on_device", "on_host", "walk", "curvature", "optimizers", "checkpoint"},
    {"objective"},
    {"training", "stopping", "inference", "diagnostics", "bench", "run_folder", "results", "job"},
    {"allotment", "hosts", "prepare", "predictions", "gathering"},
    {"model_rows"},
    {"recording"},
    {"loading"},
    {"theta_files"},
    {"exporting"},
    {"going_on", "leading"},
    {"sitting"},
    {"run"},
    {"choosing"},
    {"describe", "follow", "tensorboard", "soundness", "api", "explain", "sklearn"},
    {"report"},
    {"cli"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
APART = {("optimizers", room) for room in FLOOR if room not in ("errors", "tree", "optimizers")}
APART |= {(room, "optimizers") for room in ("objective", "on_device", "on_host", "walk", "curvature", "factors")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path):
    here = ["gpubp", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            if module[:1] == ["gpubp"]:
                yield from [module[1]] if len(module) > 1 else [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "gpubp" and len(parts) > 1:
                    yield parts[1]


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor yet: give it one"
    for other in imported_rooms(path):
        if other == "__version__":
            continue
        assert FLOOR[other] <= FLOOR[room], f"{room} imports {other}, which is above it"
        assert (room, other) not in APART, f"{room} must not know {other}"


def test_importing_gpubp_and_asking_for_help_load_nothing_heavy():
    heavy = "{'numpy', 'h5py', 'cupy', 'numba', 'matplotlib', 'mpi4py'}"
    code = f"""
import sys, gpubp
assert not {heavy} & set(sys.modules), sorted({heavy} & set(sys.modules))
from gpubp.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
assert not {heavy} & set(sys.modules), sorted({heavy} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout


def test_no_file_holds_more_than_one_idea():
    long = {str(p.relative_to(PACKAGE)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 420}
    assert not long


def test_the_map_of_the_data_room_has_every_module():
    room = PACKAGE / "data"
    there = {path.stem for path in room.glob("*.py")} | {path.parent.name for path in room.glob("*/__init__.py")}
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    assert set(re.findall(r"`(\w+)`", text)) == there - {"__init__"}
