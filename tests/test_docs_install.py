"""docs/install.md names what there is: extras, files, options; its shell lines parse."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from in_process import ran

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "install.md"
TEXT = PAGE.read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines() if line]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", cell)


def test_every_extra_is_in_the_table_or_said_to_be_for_developers():
    table = TEXT.partition("| extra |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [row.split("|")[1:-1] for row in table]
    users = [name for row in rows for name in names_in(row[0])]
    assert sorted([*users, "docs", "nvrtc", "test", "dev"]) == sorted(EXTRAS)
    for extras, brings, _ in rows:
        for name in set(names_in(extras)) - {"cuda12", "cuda13", "mkl"}:  # these are told in words
            packages = [re.split(r"[<>=]", line)[0] for line in EXTRAS[name]]
            assert packages == [word.lower() for word in re.findall(r"[\w-]+", brings)], name


def test_shell_lines_parse_and_name_files_that_are_there():
    script = "\n".join(LINES)
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    for path in re.findall(r"(?:scripts|docker)/[\w.]+", TEXT):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    anchors = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in TEXT.splitlines()}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_the_trainings_are_lines_that_gpubp_understands():
    trainings = [line.partition(" train ")[2] for line in LINES if " train " in line]
    assert len(trainings) >= 6
    known = set(re.findall(r"--[\w-]+", ran("train", "--help").stdout))
    for line in trainings:
        assert {word for word in shlex.split(line) if word.startswith("--")} <= known, line
    assert {"--device", "--backend", "--resume"} <= known


def test_the_wheelhouse_takes_the_options_that_are_shown():
    shown = subprocess.run(["python3", ROOT / "scripts" / "make_wheelhouse", "--help"], capture_output=True, text=True)
    for option in ("--extras", "--python", "--platform"):
        assert option in shown.stdout and option in TEXT


def test_no_device_that_can_be_seen_is_as_the_table_says(gpubp_command, digits):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    gpubp_command("train", digits, "--out", "cpu", "--iterations", 1, env=hidden)
    gpubp_command("train", digits, "--out", "gpu", "--iterations", 1, "--backend", "gpu", env=hidden, check=3)
    refused = gpubp_command("train", digits, "--out", "x", env={"GPUBP_TRAIN_DEVICE": "one"}, check=2)
    assert "'one'; wanted a whole number, 0 or more" in refused.error
