"""`gpubp predict` to files and pipes: what stdout gets, what is refused, how a pipe ends, how much memory it takes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from in_process import gpubp as command
from in_process import ran
from running import ENVIRONMENT, write

import gpubp
from gpubp.predictions.formats import formats

rng = np.random.default_rng(3)
LABELS = np.array(["a,b", "plain", "κ"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a run of three classes of text, and its data: 3,000 rows."""
    folder = tmp_path_factory.mktemp("predict")
    y = rng.integers(0, 3, 3000)
    X = (rng.normal(size=(3000, 4)) + y[:, None]).astype(np.float32)
    write(folder / "d.h5", X=X, y=LABELS[y].astype(object))
    gpubp.train(folder / "d.h5", out=folder / "run", hidden=(5,), iterations=3, backend="cpu")
    return folder


def test_stdout_gets_what_the_file_gets(trained, tmp_path, capsysbinary, monkeypatch):
    from gpubp.cli._main import _run

    monkeypatch.chdir(trained)
    for format in ("csv", "tsv", "jsonl"):
        path = tmp_path / f"out.{format}"
        assert _run(["-q", "predict", "run", "d.h5", "-o", str(path)]) == (0, "", None)
        capsysbinary.readouterr()
        assert _run(["-q", "predict", "run", "d.h5", "-o", "-", "--format", format]) == (0, "", None)
        assert capsysbinary.readouterr() == (path.read_bytes(), b"")
    _run(["predict", "run", "d.h5", "-o", "-"])
    out, log = capsysbinary.readouterr()
    assert out == (tmp_path / "out.csv").read_bytes() and b"3,000" in log
    names, *table = csv.reader(io.StringIO(out.decode(), newline=""))
    assert names == ["prediction", "p_a,b", "p_plain", "p_κ"] and len(table) == 3000
    assert {row[0] for row in table} <= set(LABELS)


def test_the_ending_or_the_option_says_the_format(trained, tmp_path, capsys):
    for name, more in (("p.h5", ()), ("p.NPY", ()), ("p", ("--format", "parquet")), ("p.txt", ("--format", "jsonl"))):
        command(capsys, "predict", trained / "run", trained / "d.h5", "-o", tmp_path / name, *more)
    assert h5py.is_hdf5(tmp_path / "p.h5") and np.load(tmp_path / "p.NPY").shape == (3000,)
    assert (tmp_path / "p").read_bytes().startswith(b"PAR1")
    assert json.loads((tmp_path / "p.txt").read_text("utf-8").partition("\n")[0]).keys() == {
        "prediction", "p_a,b", "p_plain", "p_κ",
    }  # fmt: skip


def test_the_result_says_what_the_file_holds(trained, tmp_path):
    held = {"h5": "datasets", "npy": "fields", "csv": "columns"}
    for suffix, what in held.items():
        result = ran("predict", trained / "run", trained / "d.h5", "-o", tmp_path / f"o.{suffix}", "--json").json
        assert result["rows"] == 3000 and result[what][0] == "prediction"
        assert set(held.values()) & set(result) == {what}
    one = ran("predict", trained / "run", trained / "d.h5", "-o", tmp_path / "n.csv", "--json", "--no-probability")
    assert one.json["columns"] == ["prediction"]


def test_what_cannot_be_meant_is_refused(trained, tmp_path, capsys):
    def refused(*arguments: object, code: int) -> str:
        return command(capsys, "predict", trained / "run", trained / "d.h5", *arguments, code=code).line

    assert "--json with -o -" in refused("-o", "-", "--json", code=2)
    texts = ", ".join(one.name for one in formats() if one.text)
    assert f"predictions as npy on stdout; wanted one of {texts}" in refused("-o", "-", "--format", "npy", code=2)
    assert "or say --format NAME" in refused("-o", tmp_path / "p.xls", code=2)
    assert "is the data itself" in refused("-o", trained / "d.h5", "--overwrite", code=2)
    assert "no ordinary file" in refused("-o", "/dev/null", "--overwrite", code=3)
    assert "there is no folder" in refused("-o", tmp_path / "no" / "p.csv", code=3)
    checkpoint = max((trained / "run").glob("checkpoint-*.h5"))
    assert "is a checkpoint; wanted a file that predictions may replace" in refused(
        "-o", checkpoint, "--overwrite", code=3
    )
    gpubp.load(trained / "run")
    empty = write(tmp_path / "empty.h5", X=np.empty((0, 4), np.float32))
    assert "empty" in command(capsys, "predict", trained / "run", empty, "-o", tmp_path / "p.csv", code=3).line
    assert not list(tmp_path.glob("p*"))


def piped(folder: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "gpubp", "-q", "predict", "run", "big.h5", "-o", "-", *more]
    return subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT | environment
    )


@pytest.fixture(scope="module")
def big(trained) -> Path:
    """More lines than a pipe has room for: an unbuffered stdout takes them in pieces."""
    write(trained / "big.h5", X=rng.normal(size=(30_000, 4)).astype(np.float32))
    return trained


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_gets_every_byte_and_a_closed_one_ends_quietly(big, unbuffered):
    whole = piped(big, PYTHONUNBUFFERED=unbuffered)
    out, errors = whole.communicate(timeout=60)
    assert whole.returncode == 0 and errors == b""
    lines = out.decode().splitlines()
    assert len(lines) == 30_001 and {line.count(",") for line in lines if '"' not in line} == {3}

    with piped(big, PYTHONUNBUFFERED=unbuffered) as left:
        assert left.stdout and left.stderr
        assert left.stdout.readline().startswith(b"prediction")
        left.stdout.close()
        assert left.stderr.read() == b"" and left.wait(60) == 141


PEAK = """
import re, sys
from gpubp.cli._main import _run
assert _run(["-q", "predict", "run", *sys.argv[1:], "--overwrite"]) == (0, "", None)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_memory_does_not_grow_with_the_rows(trained, suffix):
    """The peak over 1,000,000 rows (16 MB of features, 32 MB of answers) is that over 40,000; HDF5 and pyarrow have
    caches of their own, which fill up to 10 and 20 MB and no further."""

    def peak(rows: int) -> int:
        data = write(trained / f"{rows}.h5", X=np.zeros((rows, 4), np.float32))
        arguments = [sys.executable, "-c", PEAK, data.name, "-o", f"out.{suffix}"]
        done = subprocess.run(arguments, cwd=trained, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return int(done.stderr) << 10

    few, many = peak(40_000), peak(1_000_000)
    assert os.path.getsize(trained / f"out.{suffix}") > 8 << 20
    assert many - few < 12 << 20
