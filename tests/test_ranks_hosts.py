"""Ranks on three hosts with real TCP between them, see `netns`: what a network does to them."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import mpi
import netns
import pytest
from in_process import Theta_of
from in_process import ran as alone
from mpi import ENDLESS, SOON, TRAIN, VAIN, WATCHDOG, rows, sound
from netns import Hosts
from running import write

pytestmark = [*mpi.needs_mpi, pytest.mark.skipif(bool(netns.missing()), reason=netns.missing())]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with Hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = rows()
    return write(tmp_path_factory.mktemp("failures") / "d.h5", X=X, y=y)


def straight(data: Path, folder: Path, iterations: int) -> bytes:
    """The Θ of one process."""
    done = alone("train", data, "--out", folder / "straight", *TRAIN, "--iterations", iterations)
    assert done.returncode == 0, done
    return Theta_of(folder / "straight")


def test_three_hosts_have_the_bits_of_one_process(hosts, data, tmp_path):
    with hosts.launch("train", data, "--out", "run", *TRAIN, "--iterations", 4, cwd=tmp_path) as launch:
        done = launch.wait()
    done.quiet()
    assert done.code == 0 and "3 (1 on a, 1 on b, 1 on c), 2 to 3 of the 8 leaves" in done.errors, done
    assert Theta_of(tmp_path / "run") == straight(data, tmp_path, 4)


def test_a_file_that_is_not_on_one_host(hosts, data, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(data, tmp_path / "data")
    words = ["train", "data/d.h5", "--out", "run", *TRAIN]
    with hosts.launch(*words, cwd=tmp_path, without=tmp_path / "data") as launch:
        done = launch.wait()
    assert done.ended(3) and "rank 2 on c: " in done.error and "data/d.h5: No such file or directory" in done.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_cable_is_pulled(hosts, data, tmp_path, name):
    with hosts.launch("train", data, "--out", "run", *VAIN, cwd=tmp_path).reaches("run") as launch:
        launch.began = time.monotonic()
        hosts.cut(name)
        try:
            done = launch.wait()  # the cut host's ranks too are gone 5 s after, though nobody can tell them to
        finally:
            hosts.mend(name)
    first = "rank 1 on b" if name == "a" else "rank 0 on a"
    assert done.code == 3 and done.seconds < WATCHDOG + SOON and not done.left, done
    assert done.said and done.said[0].startswith(f"{first} has waited"), done
    assert "gpubp resume run goes on from" in done.said[0]
    assert sound(tmp_path / "run") >= 1


def test_a_rank_of_another_host_is_killed(hosts, data, tmp_path):
    with hosts.launch("train", data, "--out", "run", *ENDLESS, cwd=tmp_path).reaches("run") as launch:
        launch.signal(signal.SIGKILL, 2)
        done = launch.wait()
    assert done.code and mpi.BANNER in done.out and "RUNNING AT 10.77.0.3" in done.out and done.seconds < SOON, done
    assert not done.left and not done.said and sound(tmp_path / "run") >= 1


def test_a_blip_of_the_network_is_waited_for(hosts, data, tmp_path):
    with hosts.launch("train", data, "--out", "run", *ENDLESS, "--json", cwd=tmp_path).reaches("run") as launch:
        hosts.cut("b")
        try:
            time.sleep(3)
            at = len((tmp_path / "run" / "history.jsonl").read_text().splitlines())
        finally:
            hosts.mend("b")
        launch.reaches("run", at + 2)
        launch.signal(signal.SIGTERM)
        done = launch.wait()
    done.quiet()
    assert done.code == 143 and not done.said, done
    last = json.loads(done.out)["iterations"]
    assert last == sound(tmp_path / "run") >= at + 2
    assert Theta_of(tmp_path / "run") == straight(data, tmp_path, last)
