"""The short form of every room, and the driver: what it says of a loss, its options, its table."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import room
from forks import environment
from running import ROOT

HERE = Path(__file__).parent
ROOMS = room.rooms()


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOMS)
def test_nothing_is_lost(name, tmp_path):
    rounds = ROOMS[name].rounds(tmp_path, random.Random(f"1 {name}"))
    counts: list[object] = list(islice(rounds, ROOMS[name].SHORT))
    assert len(counts) == ROOMS[name].SHORT and all(counts)
    if close := getattr(rounds, "close", None):
        close()


def test_a_room_is_described():
    for name, module in ROOMS.items():
        assert len((module.__doc__ or "").split()) > 20, name
        assert module.WHAT and "\n" not in module.WHAT and module.SHORT > 0, name


# The driver, in a folder of its own with rooms that take no time -----------------------------------------------------

ROOM = '''"""A room."""
from collections import Counter
import time
WHAT, SHORT = "nothing much", 1
def rounds(place, dice):
    for number in range({rounds}):
        folder = place / str(number)
        folder.mkdir()
        {body}
        folder.rmdir()
        yield Counter({{"throws": 1, "most of a throw": number}})
'''


@pytest.fixture
def driver(tmp_path):
    """Calls a copy of the driver; rooms are added by `driver.room`."""
    folder = tmp_path / "a" / "b" / "torture"
    folder.mkdir(parents=True)
    for name in ("__main__.py", "room.py"):
        shutil.copy(HERE / name, folder)

    class Driver:
        def room(self, name: str, body: str = "pass", rounds: int = 3) -> None:
            (folder / f"{name}.py").write_text(ROOM.format(body=body, rounds=rounds))

        def start(self, *arguments: object) -> subprocess.Popen[str]:
            path = f"{ROOT}:{ROOT / 'tests'}"
            return subprocess.Popen(
                [sys.executable, "-P", str(folder), *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                env=environment() | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)},
            )  # fmt: skip

        def __call__(self, *arguments: object, code: int = 0) -> tuple[str, str]:
            with self.start(*arguments) as process:
                out, err = process.communicate(timeout=60)
            assert process.returncode == code, err
            return out, err

    return Driver()


def test_rooms_take_turns_and_what_they_counted_is_in_the_table_and_the_file(driver, tmp_path):
    driver.room("first")
    driver.room("second", rounds=2)
    out, err = driver("--json", tmp_path / "result.json", "--seed", 5)
    assert "seed 5" in err
    assert out.splitlines()[0].split()[:4] == ["room", "rounds", "seconds", "verdict"]
    assert out.count("nothing lost") == 2 and "2 most of a throw, 3 throws" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["seed"] == 5 and result["lost"] is False and set(result["rooms"]) == {"first", "second"}
    assert result["rooms"]["first"]["counts"] == {"throws": 3, "most of a throw": 2}
    assert [one["rounds"] for one in result["rooms"].values()] == [3, 2]
    assert not list(tmp_path.glob("torture-*"))


def test_a_loss_ends_its_room_alone_and_says_how_to_see_it_again(driver, tmp_path):
    driver.room("bad", body="assert number < 1, f'lost {dice.random():.6f}'")
    driver.room("broken", body="1 / 0")
    driver.room("good")
    out, err = driver("--seed", 7, "--json", "result.json", code=1)
    first = random.Random("7 bad").random()
    assert f"LOST in bad, round 2, seed 7, bad.py:9: lost {first:.6f}\n" in err
    assert "again with --only bad --seed 7" in err
    assert "LOST in broken, round 1" in err and "ZeroDivisionError" in err
    assert out.count("LOST") == 2 and "nothing lost" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["lost"] and result["rooms"]["bad"]["verdict"] == "LOST" and result["rooms"]["good"]["rounds"] == 3
    again = driver("--only", "bad", "--seed", 7, code=1)[1]
    assert f"lost {first:.6f}\n" in again and "broken" not in again
    assert not list(tmp_path.glob("torture-*"))
    kept = driver("--only", "bad", "--keep", code=1)[1]
    (folder,) = tmp_path.glob("torture-bad-*")
    assert f"kept for inspection: {folder}" in kept and [path.name for path in folder.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "bda"], "--only bda is no room; wanted one of bad, good"),
        (["--minutes", "0"], "--minutes 0; wanted a number above 0"),
        (["--minutes", "nan"], "--minutes nan"),
        (["--minutes", "soon"], "--minutes"),
        (["--rooms"], "--rooms"),
    ],
)
def test_mistakes_are_one_line(driver, arguments, says):
    driver.room("bad")
    driver.room("good")
    out, err = driver(*arguments, code=2)
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("torture: error: ") and says in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_with_what_was_done(driver, tmp_path, number):
    driver.room("slow", body="time.sleep(0.01); (place.parent / 'begun').touch()", rounds=10**6)
    with driver.start("--minutes", 5) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "interrupted" in err and "Traceback" not in err
    assert out.splitlines()[1].split()[0] == "slow" and not list(tmp_path.glob("torture-*"))


def test_time_is_shared_and_runs_out(driver):
    driver.room("quick", rounds=10**6)
    driver.room("slow", body="time.sleep(0.2)", rounds=10**6)
    out, _ = driver("--minutes", 0.02, "--json", "/dev/stderr")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if not line.startswith(" ")}
    assert int(rows["quick"][1].replace(",", "")) > 3 * int(rows["slow"][1]) > 0


def test_scripts_dev_has_the_word(monkeypatch):
    loader = importlib.machinery.SourceFileLoader("scripts_dev", str(ROOT / "scripts" / "dev"))
    spec = importlib.util.spec_from_loader("scripts_dev", loader)
    assert spec
    dev = importlib.util.module_from_spec(spec)
    loader.exec_module(dev)
    extras, commands = [], []
    monkeypatch.setattr(dev, "prepare", extras.append)
    monkeypatch.setattr("os.environ", dict(os.environ) | {"OPENBLAS_NUM_THREADS": "7", "GPUBP_EXTRAS": ""})
    monkeypatch.setattr("os.execv", lambda path, words: commands.append((words, dict(os.environ))))
    dev.main(["torture", "--minutes", "1"])
    ((words, found),) = commands
    assert extras == [{"test"}] and words[1:] == ["-P", str(HERE), "--minutes", "1"]
    assert found["OPENBLAS_NUM_THREADS"] == "1"


def test_the_real_driver_finds_the_rooms():
    done = subprocess.run(
        [sys.executable, "-P", str(HERE), "--only", "nothing"], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 2 and done.stderr.rstrip().endswith(f"wanted one of {', '.join(ROOMS)}; see --help")
