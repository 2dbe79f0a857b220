"""A run looked at from outside: its history as it grows, the chart, how it ends, and that nothing of it is touched."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import ran
from running import ENVIRONMENT

from gpubp import chart as charts
from gpubp import follow as following
from gpubp.errors import CheckpointError
from gpubp.follow import History, follow, picture, trainer
from gpubp.run_folder import RunFolder


def row(iteration: int, J: float | None, validation: float | None = None, **more: Any) -> dict[str, Any]:
    seconds = 0.5 * iteration
    return {"iteration": iteration, "evaluations": iteration + 1, "J": J, "gradient": 0.25, "validation": validation,
            "seconds": seconds, "precision": "fp32", "passes": 2.0 * iteration, "step": 0.125, **more}  # fmt: skip


def text_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


@pytest.fixture
def run(digits, tmp_path) -> Path:
    """A run that has ended."""
    done = ran("train", digits, "--out", tmp_path / "run", "--hidden", 4, "--iterations", 6, "--validation", 0.2)
    assert done.returncode == 0
    return tmp_path / "run"


def files(run: Path) -> dict[str, tuple[int, int, bytes]]:
    return {p.name: ((at := p.stat()).st_ino, at.st_mtime_ns, p.read_bytes()) for p in sorted(run.iterdir())}


# The history as it grows.


def test_a_history_that_grows_is_read_line_by_line_and_a_torn_line_waits(tmp_path):
    history, path = History(tmp_path), tmp_path / "history.jsonl"
    history.look()
    assert history.rows == []
    whole = text_of([row(1, 3.0), row(2, 2.0)])
    path.write_text(whole[:-20])
    history.look()
    assert history.rows == [row(1, 3.0)]
    path.write_text(whole)  # the same file, longer
    history.look()
    assert history.rows == [row(1, 3.0), row(2, 2.0)]
    with path.open("a") as file:
        file.write('{"iteration": 3, "J\n\0\0\n[4]\n' + text_of([row(4, 1.0)]))
    history.look()
    assert [one["iteration"] for one in history.rows] == [1, 2, 4]
    history.close()


@pytest.mark.parametrize("how", ["renamed", "cut"])
def test_a_history_that_is_written_anew_is_read_anew(tmp_path, how):
    history, path = History(tmp_path), tmp_path / "history.jsonl"
    path.write_text(text_of([row(1, 3.0), row(2, 2.0), row(3, 1.0)]))
    history.look()
    other = path if how == "cut" else tmp_path / "new"
    other.write_text(text_of([row(1, 3.0), row(2, 2.5)]))
    os.replace(other, path)
    history.look()
    assert history.rows == [row(1, 3.0), row(2, 2.5)]
    history.close()


# Who is at work.


def test_a_trainer_is_seen_without_the_lock_being_tried(tmp_path, monkeypatch):
    assert trainer(tmp_path) is False  # no lock at all
    with RunFolder(tmp_path / "run"):
        monkeypatch.setattr("fcntl.flock", None)
        assert trainer(tmp_path / "run") is True
    assert trainer(tmp_path / "run") is False
    monkeypatch.setattr(following, "_LOCKS", tmp_path / "none")
    assert trainer(tmp_path / "run") is None  # this process lives, and more cannot be known
    (tmp_path / "run" / "lock").write_text(f"gpubp process {2**22 + 5} on {socket.gethostname()}\n")
    assert trainer(tmp_path / "run") is False
    (tmp_path / "run" / "lock").write_text("gpubp process 1 on another-machine\n")
    assert trainer(tmp_path / "run") is None


# The chart.


def test_the_chart_goes_down_where_J_does_and_has_both_ends_on_its_axes():
    rows = [row(i, 10.0 - i) for i in range(1, 10)]  # 9 … 1: beyond the ratio, so logarithmic
    lines = charts.chart(rows, 60, 8)
    assert len(lines) == 8 + 2 and all(len(line) <= 60 for line in lines)
    assert lines[0].split()[0] == "9" and lines[7].split()[0] == "1" and "(log)" in lines[-1]
    assert lines[-1].split()[0] == "1" and lines[-1].split()[-1] == "9"
    firsts = [next((i for i, c in enumerate(line[12:]) if c != " "), None) for line in lines[:8]]
    assert firsts == sorted(firsts) and firsts[0] == 0 and firsts[-1] > 30  # further down means later
    assert "(log)" not in charts.chart([row(1, 3.0), row(2, 2.0)], 60, 8)[-1]


def test_dots_are_where_the_values_are():
    lines = charts.chart([row(0, 0.0), row(100, 4.0)], 62, 10)  # 50 columns: a straight line up
    for y, line in enumerate(lines[:10]):
        marked = [x for x, c in enumerate(line[12:]) if c != " "]
        assert marked and abs(np.mean(marked) - (9 - y + 0.5) * 5) < 3
    dots = np.zeros((40, 100), bool)  # as Unicode numbers them: 1, 2, 3, 7 down the left, 4, 5, 6, 8 the right
    for y, line in enumerate(lines[:10]):
        for x, c in enumerate(line[12:62]):
            for bit, (down, right) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]):
                dots[4 * y + down, 2 * x + right] = c > " " and (ord(c) - 0x2800) >> bit & 1
    down, right = dots.nonzero()
    assert set(right) == set(range(100)) and np.abs(down - 39 * (1 - right / 99)).max() <= 1


def test_the_validation_cost_has_a_sign_of_its_own_and_one_where_both_are():
    rows = [row(i, 5.0 - i, 5.0 - i if i < 3 else 4.0) for i in range(1, 5)]
    lines = charts.chart(rows, 60, 8)
    drawn = "".join(line[12:] for line in lines[:8])
    assert "+" in drawn and "*" in drawn and any("⠀" < c <= "⣿" for c in drawn)
    assert "+ validation" in lines[-1] and "* both" in lines[-1]


@pytest.mark.parametrize("width", [20, 30, 40, 80, 200])
@pytest.mark.parametrize("height", [4, 8, 24])
def test_a_picture_fits_its_terminal(width, height):
    rows = [row(i, 1e3 / i, 700 / i + i) for i in range(1, 5000, 7)]
    lines = picture(Path("a-run-with-a-name"), rows, width, height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= max(height, 7) and any("J 0.2" in line for line in lines)  # 1000 / 4999
    assert any("┤" in line for line in lines) == (width >= 30 and height >= 8 + 4 * (width < 80))


@pytest.mark.parametrize(
    "rows", [[row(1, 2.0)], [row(1, None), row(2, None)], [row(1, 2.0), row(2, None)], [row(1, -1.0)]]
)
def test_few_numbers_or_none_are_no_trouble(rows):
    assert picture(Path("run"), rows, 80, 24)


def test_figures_of_the_last_iteration():
    said = following.numbers([row(1, 3.0, 0.5), row(2, 2.0, 0.25), row(3, 1.5, 0.75)])
    assert said == ["iteration 3", "J 1.5", "validation 0.75", "lowest 0.25 at 2", "max|∇J| 2.50e-01", "step 1.25e-01",
                    "passes 6", "1.5 s", "4 passes/s", "fp32"]  # fmt: skip
    assert "step" not in "".join(following.numbers([row(1, 3.0, step=None)]))  # of a run of before there was one


# To the end.


def test_a_run_that_has_ended_is_shown_once_and_left_as_it_is(run):
    before, out = files(run), io.StringIO()
    assert follow(run, stream=out, interval=60) == 0
    assert "iteration 6" in out.getvalue() and "ended: stopped at the limit of 6 iterations" in out.getvalue()
    assert any("⠀" < c <= "⣿" for c in out.getvalue()) and "\x1b" not in out.getvalue()
    assert files(run) == before


def test_json_has_a_line_for_each_iteration_and_one_for_the_end(run):
    out = io.StringIO()
    assert follow(run, as_json=True, stream=out) == 0
    *rows, end = map(json.loads, out.getvalue().splitlines())
    assert rows == [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [one["iteration"] for one in rows] == [1, 2, 3, 4, 5, 6] and end["ending"] == "limit"


def test_json_says_again_what_a_resumed_run_does_again():
    out = io.StringIO()
    shown = following._Json(out)
    shown.show(Path(), [row(1, 3.0), row(2, 2.0), row(3, 1.0)])
    shown.show(Path(), [row(1, 3.0)])
    shown.show(Path(), [row(1, 3.0), row(2, 2.0, seconds=9)])
    assert [json.loads(line)["iteration"] for line in out.getvalue().splitlines()] == [1, 2, 3, 2]


def test_a_trainer_that_was_killed_is_no_good_end(run):
    from gpubp.checkpoint import read, write

    path = sorted(run.glob("checkpoint-*.h5"))[-1]
    for other in sorted(run.glob("checkpoint-*.h5"))[:-1]:
        other.unlink()
    checkpoint = read(path)
    object.__setattr__(checkpoint, "ending", None)
    write(path, checkpoint)
    out = io.StringIO()
    assert follow(run, stream=out) == 1 and "gone without an ending, after 6 iterations" in out.getvalue()
    assert f"gpubp resume {run}" in out.getvalue()


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is no folder"):
        follow(tmp_path / "file")


def test_a_run_that_is_to_come_is_waited_for_and_ctrl_c_ends_that(tmp_path, monkeypatch):
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    out = io.StringIO()
    assert follow(tmp_path / "none", stream=out, interval=0.25) == 130
    assert looks == [0.25] * 3 and out.getvalue() == f"waiting for {tmp_path / 'none'} to begin\n"
    assert not (tmp_path / "none").exists()


def begun(*arguments: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "gpubp", "-q", *map(str, arguments)]
    return subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL)


LONG = ("--hidden", "40,40", "--kernel", "numpy", "--optimizer", "gd", "--set", "learning_rate=0.01", "--seconds", 2)
LONG += ("--iterations", 10**6)


def test_a_real_run_is_followed_from_before_its_beginning_to_its_end(digits, tmp_path):
    out, codes = io.StringIO(), []
    thread = threading.Thread(
        target=lambda: codes.append(follow(tmp_path / "run", as_json=True, stream=out, interval=0.02))
    )
    thread.start()
    process = begun("train", digits, "--out", tmp_path / "run", *LONG)
    assert process.wait(60) == 0
    thread.join(20)
    *rows, end = map(json.loads, out.getvalue().splitlines())
    assert codes == [0] and end["ending"] == "limit" and "2 s" in end["reason"]
    assert [one["iteration"] for one in rows] == list(range(1, len(rows) + 1)) and len(rows) > 20
    assert rows == [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]


def test_on_a_terminal_the_chart_is_renewed_in_place_and_the_run_outlives_who_looks_on(digits, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = begun("train", digits, "--out", tmp_path / "run", *LONG)
    code = "import sys; from gpubp.follow import follow; sys.exit(follow(sys.argv[1], interval=0.1))"
    viewer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], env=ENVIRONMENT, stdout=theirs, stderr=theirs, stdin=theirs
    )
    os.close(theirs)
    seen = b""
    while seen.count("└".encode()) < 3:
        seen += os.read(ours, 1 << 16)
    viewer.send_signal(signal.SIGINT)
    try:
        while new := os.read(ours, 1 << 16):
            seen += new
    except OSError:  # Linux's way to say that nobody has it open any more
        pass
    os.close(ours)
    assert viewer.wait(20) == 130 and process.wait(60) == 0  # it was not disturbed
    text = seen.decode(errors="replace").replace("\r\n", "\n")
    assert "\x1b[?25l" in text and text.rstrip().endswith("\x1b[?25h") and "Traceback" not in text
    frames = [frame for frame in text.split("\x1b[J") if "└" in frame]
    plain = [line.replace("\x1b[K", "") for line in frames[1].split("\n")]
    assert len(plain) <= 24 and all(len(line.lstrip("\r\x1b[0123456789A")) <= 80 for line in plain)
    assert f"\x1b[{frames[1].count(chr(10))}A" in frames[2]  # back to where the last one began
