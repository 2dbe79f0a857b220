"""A checkpoint comes back to the bit, is written whole or not at all, and is never parsed once a bit of it changed."""

from __future__ import annotations

import errno
import io
import os
import random
import struct
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.checkpoint import Checkpoint, guard, is_checkpoint, pack, read, verify, warn_once, write, write_whole
from gpubp.errors import CheckpointError, MismatchError


def record(number: int = 7, /, **changes: Any) -> Checkpoint:
    """A checkpoint of a 3-4-2 network at that iteration, which its content depends on."""
    rng = np.random.default_rng(number)
    content: dict[str, Any] = {
        "Theta": (rng.normal(size=(4, 4)), rng.normal(size=(2, 5))),
        "network": {"sizes": (3, 4, 2), "activation": "sigmoid", "cost": "logistic"},
        "optimizer": {"name": "lbfgs", "m": 30, "c1": 1e-4},
        "state": {"Theta": rng.normal(size=64), "J": 0.1 + number, "iteration": number, "ready": True},
        "lambda_": 1.0,
        "scaling": {"kind": "standard", "mean": rng.normal(size=3), "scale": None},
        "targets": {"kind": "classes", "classes": (1, 2), "outputs": 2},
        "history": rng.normal(size=(number, 2)),
        "history_columns": ("iteration", "J"),
        "conditions": {"backend": "cpu", "leaves": 8},
        "job": {"data": "digits.h5", "hidden": [4]},
        "iteration": number,
        "ending": None,
    }
    return Checkpoint(**(content | changes))


def same(a: Any, b: Any) -> bool:
    """Equal to the bit and in type."""
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, float):
        return type(b) is float and struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    for field in fields(Checkpoint):
        assert same(getattr(a, field.name), getattr(b, field.name)), field.name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint-00000007.h5"


# The round trip -----------------------------------------------------------------------------------------------------


def test_everything_comes_back_to_the_bit(path):
    odd = np.array([-0.0, np.nan, -np.inf, 5e-324, np.nextafter(1, 2)])
    odd.view(np.uint64)[1] |= 12345  # a NaN with a payload
    checkpoint = record(
        state={
            "odd": odd,
            "S": np.arange(12.0).reshape(3, 4),
            "column_order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "none_yet": np.empty((0, 5)),
            "small": np.array([[1, 2]], np.uint8),
            "half": np.array([0.1], np.float16),
            "signs": np.array([True, False]),
            "counter": np.array([2**64 - 1], np.uint64),
            "least": -(2**63),
            "most": 2**63 - 1,
            "minus_zero": -0.0,
            "third": 1 / 3,
            "infinite": float("inf"),
            "yes": True,
            "no": False,
        },
        scaling={"kind": "none", "mean": None, "scale": np.array([2.5]), "factor": 1 / 3},
        job={"data": "Größe\udcff \0 🙂.h5", "options": {"η": [1e-300, None, True, 10**40]}, "empty": ""},
        ending={"kind": "failed", "reason": "J is not finite", "J": float("inf")},
        lambda_=1 / 3,
        history=np.empty((0, 2)),
    )
    write(path, checkpoint)
    assert_same(read(path), checkpoint)
    verify(path)
    assert is_checkpoint(path)


def test_numpy_scalars_and_tuples_come_back_as_python_writes_them(path):
    write(path, record(
        state={"a": np.float32(0.1), "b": np.int32(-3), "c": np.bool_(True), "d": np.array(2.5)},
        job={"hidden": (np.int64(4), np.float64(0.5))},
        lambda_=np.float64(2),
        iteration=np.int64(9),
    ))  # fmt: skip
    back = read(path)
    assert same(back.state, {"a": float(np.float32(0.1)), "b": -3, "c": True, "d": 2.5})
    assert same(back.job, {"hidden": [4, 0.5]})
    assert same((back.lambda_, back.iteration), (2.0, 9))


def test_equal_content_gives_equal_bytes():
    checkpoint = record()
    first = bytes(pack(checkpoint))
    time.sleep(1.05)  # HDF5 keeps times in whole seconds
    backwards = {k: getattr(checkpoint, k) for k in ("network", "optimizer", "state", "scaling", "job", "conditions")}
    assert bytes(pack(record(**{k: dict(reversed(v.items())) for k, v in backwards.items()}))) == first
    assert bytes(pack(record(8))) != first


def test_any_hdf5_reader_finds_Theta_and_is_told_what_it_is(path):
    checkpoint = record()
    write(path, checkpoint)
    file: Any
    with h5py.File(path, "r") as file:
        assert file.userblock_size == 4096
        assert "column 0" in file.attrs["description"] and "Theta/Theta1" in file.attrs["description"]
        for l in (1, 2):
            Theta = file[f"Theta/Theta{l}"]
            assert same(Theta[:], checkpoint.Theta[l - 1])
            assert (Theta.attrs["from_layer"], Theta.attrs["to_layer"]) == (l, l + 1)
            assert f"layer {l} to layer {l + 1}" in Theta.attrs["meaning"]
        assert file["job"].asstr()[()] == '{"data": "digits.h5", "hidden": [4]}'
        assert same(file["lambda"][()].item(), 1.0)


# What a record may hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "changes"),
    [
        ("Theta/Theta2", {"Theta": (np.zeros((4, 4)), np.zeros((2, 4)))}),
        ("Theta/Theta1", {"Theta": (np.zeros((4, 4), np.float32), np.zeros((2, 5)))}),
        ("Theta/Theta1", {"Theta": (np.zeros((4, 4), ">f8"), np.zeros((2, 5)))}),
        ("Theta/Theta1", {"Theta": ([[0.0]], np.zeros((2, 5)))}),
        ("Theta", {"Theta": (np.zeros((4, 4)),)}),
        ("network", {"network": {"activation": "tanh"}}),
        ("network", {"network": {"sizes": [3, 0, 2]}}),
        ("network", {"network": None}),
        ("optimizer/state/s", {"state": {"s": "text"}}),
        ("optimizer/state/s", {"state": {"s": None}}),
        ("optimizer/state/s", {"state": {"s": 2**63}}),
        ("optimizer/state/s", {"state": {"s": np.array([1j])}}),
        ("optimizer/state/s", {"state": {"s": np.array([None])}}),
        ("optimizer/state/s", {"state": {"s": np.array([1], np.longdouble)}}),
        ("optimizer/state/s", {"state": {"s": [1.0, 2.0]}}),
        ("optimizer/state/a/b", {"state": {"a/b": 1.0}}),
        ("scaling/settings", {"scaling": {"settings": np.zeros(2)}}),
        ("scaling/mean", {"scaling": {"mean": {1.0}}}),
        ("lambda", {"lambda_": 1}),
        ("lambda", {"lambda_": "1"}),
        ("iteration", {"iteration": -1}),
        ("iteration", {"iteration": True}),
        ("history", {"history": np.zeros((3, 3))}),
        ("history", {"history": np.zeros(2)}),
        ("history", {"history": [[0.0, 1.0]]}),
        ("history_columns", {"history_columns": ("J", "J")}),
        ("job.weights.0", {"job": {"weights": {0: 1.0}}}),
        ("job.hidden[1]", {"job": {"hidden": [1, {2}]}}),
        ("ending", {"ending": "done"}),
    ],
)
def test_a_wrong_leaf_is_refused_by_name_before_anything_is_written(leaf, changes):
    with pytest.raises(CheckpointError) as caught:
        record(**changes)
    assert f"leaf '{leaf}'" in str(caught.value) and "wanted" in str(caught.value)
    assert "\n" not in str(caught.value)


# The guard ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_parser(monkeypatch):
    """Reaching libhdf5 is a failure."""

    def reached(*arguments: Any, **options: Any) -> None:
        raise AssertionError("libhdf5 was given a damaged file")

    return lambda: monkeypatch.setattr(h5py, "File", reached)


def damages() -> list[tuple[str, bytes]]:
    """Every header byte changed in two ways, 700 payload bytes, every short length and 300 others, longer files."""
    sound, dice = bytes(pack(record())), random.Random(1)
    flips = [(i, x) for i in range(512) for x in (1 << dice.randrange(8), 0xFF)]
    flips += [(dice.randrange(512, len(sound)), dice.randrange(1, 256)) for _ in range(700)]
    lengths = [*range(600), *(dice.randrange(600, len(sound)) for _ in range(300)), len(sound) - 1]
    return [
        *((f"byte {i} ^ {x}", sound[:i] + bytes([sound[i] ^ x]) + sound[i + 1 :]) for i, x in flips),
        *((f"cut to {n}", sound[:n]) for n in lengths),
        *((f"longer by {n}", sound + bytes(n)) for n in (1, 512, 4096)),
    ]


def test_no_damage_reaches_the_parser(path, no_parser):
    cases = damages()
    no_parser()
    for what, data in cases:
        path.write_bytes(data)
        for look in (verify, read):
            with pytest.raises(CheckpointError) as caught:
                look(path)
            assert type(caught.value) is CheckpointError, what
            assert str(path) in str(caught.value) and "\n" not in str(caught.value), what


def test_the_test_above_would_notice_the_parser(path, no_parser):
    write(path, record())
    no_parser()
    with pytest.raises(AssertionError, match="libhdf5"):
        read(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "No such file"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"\x89PNG" * 200), "no checkpoint"),
        (lambda p: p.mkdir(), "no regular file"),
        (lambda p: os.mkfifo(p), "no regular file"),
        (lambda p: p.symlink_to("/etc/hostname"), "is a symbolic link; .*take /etc/hostname"),
        (lambda p: p.symlink_to("/dev/zero"), "is a symbolic link"),
        (lambda p: h5py.File(p, "w").close(), "no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused_at_once(path, no_parser, make, says):
    make(path)
    no_parser()
    for look in (verify, read):
        with pytest.raises(CheckpointError, match=says):
            look(path)
    assert not is_checkpoint(path)


def test_a_file_as_large_as_a_disk_is_refused_without_reading_it(path):
    write(path, record())
    os.truncate(path, 1 << 43)  # sparse
    with pytest.raises(CheckpointError, match="8,796,093,022,208 bytes"):
        read(path)


@pytest.mark.parametrize(("version", "do"), [(3, "newer gpubp"), (0, "that wrote it")])
def test_another_format_is_named_not_called_damaged(path, monkeypatch, no_parser, version, do):
    with monkeypatch.context() as other:
        other.setattr(guard, "FORMAT", version)
        write(path, record())
    no_parser()
    for look in (verify, read):
        with pytest.raises(MismatchError, match=f"format {version}; wanted format 1 to 2; .*{do}"):
            look(path)
    assert is_checkpoint(path)


# A right digest over wrong content ----------------------------------------------------------------------------------


def replace_with(name: str, **options: Any):
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def link(name: str, target: Any):
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return change


def text(words: str) -> dict[str, Any]:
    return {"data": np.array(words.encode(), h5py.string_dtype("utf-8", len(words)))}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.__delitem__("Theta/Theta1"), "Theta/Theta1"),
        (lambda f: f.__delitem__("optimizer/settings"), "leaf 'optimizer/settings' is missing"),
        (lambda f: f.create_dataset("Theta/Theta4", data=np.zeros((2, 2))), "leaf 'Theta/Theta3' is missing"),
        (lambda f: f.create_dataset("extra", data=1.0), "leaf 'extra' belongs to no checkpoint"),
        (lambda f: f.create_group("extra"), "leaf 'extra'"),
        (lambda f: f.__setitem__("Theta/loop", f["Theta"]), "leaf 'Theta/loop'"),
        (replace_with("Theta/Theta1", data=np.zeros((4, 4), np.float32)), r"leaf 'Theta/Theta1' .*float32.*float64"),
        (replace_with("Theta/Theta1", data=np.zeros((4, 3))), r"leaf 'Theta/Theta1' .*\(4, 3\).*\(4, 4\)"),
        (replace_with("optimizer/state/J", data=np.float32(1)), "leaf 'optimizer/state/J' .*float32"),
        (replace_with("optimizer/state/J", data=h5py.Empty("f8")), "leaf 'optimizer/state/J'"),
        (replace_with("optimizer/state/J", **text("1")), "leaf 'optimizer/state/J'"),
        (replace_with("iteration", data=1.5), "leaf 'iteration'"),
        (replace_with("job", data=1.0), "leaf 'job'"),
        (replace_with("job", **text("{")), "nothing that gpubp wrote"),
        (replace_with("job", **text("[1]")), "leaf 'job'"),
        (replace_with("scaling/settings", **text("1")), "nothing that gpubp wrote"),
        (replace_with("history", data=np.zeros((9, 2)), chunks=(3, 2)), "leaf 'history' is not stored plainly"),
        (replace_with("history", data=np.zeros((9, 2)), compression="gzip"), "leaf 'history' is not stored plainly"),
        (replace_with("history", shape=(10**9, 2), dtype="f8"), "leaf 'history' is not stored plainly"),
        (replace_with("history", shape=(1, 2), dtype="f8", external=[("/etc/hostname", 0, 16)]), "not stored plainly"),
        (link("history", h5py.SoftLink("/Theta/Theta1")), "leaf 'history' is not stored plainly"),
        (link("history", h5py.ExternalLink("/etc/hostname", "/x")), "leaf 'history' is not stored plainly"),
        (link("history", np.dtype("f8")), "leaf 'history' is not stored plainly"),
    ],
)
def test_a_file_with_a_right_digest_is_not_believed_either(path, change, says):
    image = io.BytesIO(pack(record()))
    with h5py.File(image, "r+") as file:
        change(file)
    guard.seal(image.getbuffer())
    path.write_bytes(image.getvalue())
    verify(path)
    with pytest.raises(CheckpointError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_content_that_is_no_hdf5_is_one_line(path):
    image = bytearray(4096)
    guard.seal(memoryview(image))
    path.write_bytes(image)
    with pytest.raises(CheckpointError, match="nothing that gpubp wrote"):
        read(path)


# Written whole ------------------------------------------------------------------------------------------------------


def test_bytes_are_synced_before_the_name_and_the_name_before_the_return(path, monkeypatch):
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        calls.append(f"fsync {place.name} of {os.fstat(fd).st_size}" if place.is_file() else f"fsync folder {place}")
        real_fsync(fd)

    def replace(a: Any, b: Any) -> None:
        calls.append(f"replace {Path(a).name} {Path(b).name}")
        real_replace(a, b)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_whole(path, b"x" * 5000)
    temporary = f".{path.name}.tmp.{os.getpid()}"
    assert calls == [f"fsync {temporary} of 5000", f"replace {temporary} {path.name}", f"fsync folder {path.parent}"]


FAULTS: dict[Any, str] = {
    errno.ENOSPC: "No space left",
    errno.EIO: "Input/output",
    errno.EDQUOT: "quota",
    errno.EROFS: "Read-only",
}


@pytest.mark.parametrize("fault", [*FAULTS, KeyboardInterrupt])
def test_a_fault_at_any_call_leaves_the_earlier_file_and_nothing_else(path, monkeypatch, fault):
    before, after = record(1), record(2)
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}
    log: list[str] = []
    fails_at = 0

    def faulty(name: str):
        def call(*arguments: Any) -> Any:
            log.append(name)
            if len(log) == fails_at + 1:
                raise KeyboardInterrupt if fault is KeyboardInterrupt else OSError(fault, os.strerror(fault))
            if name == "write":  # a disk that takes a little at a time
                return real[name](arguments[0], arguments[1][:3000])
            return real[name](*arguments)

        return call

    while True:
        write(path, before)
        log.clear()
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, faulty(name))
            try:
                write(path, after)
                break
            except CheckpointError as error:
                assert FAULTS[fault] in str(error) and "\n" not in str(error)
            except KeyboardInterrupt:
                assert fault is KeyboardInterrupt
        renamed = "replace" in log[:-1]
        assert_same(read(path), after if renamed else before)
        assert os.listdir(path.parent) == [path.name], log
        fails_at += 1
    assert_same(read(path), after)
    assert log[0] == "open" and log[-4:] == ["fsync", "replace", "open", "fsync"] and log.count("write") > 3


def test_a_temp_file_of_a_dead_process_with_our_number_is_no_obstacle(path):
    secret = path.parent / "secret"
    secret.write_text("keep me")
    (path.parent / f".{path.name}.tmp.{os.getpid()}").symlink_to(secret)
    write(path, record())
    verify(path)
    assert secret.read_text() == "keep me"


def test_a_folder_that_cannot_be_synced_is_warned_of_once(path, monkeypatch, caplog):
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    warn_once.cache_clear()
    for i in range(3):
        write(path, record(i))
    assert [r.name for r in caplog.records] == ["gpubp"] and "power cut" in caplog.text
    assert read(path).iteration == 2


def test_nowhere_to_write_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "missing" / "c.h5", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match=f"cannot write {target}: "):
            write(target, record())
    assert os.listdir(tmp_path) == ["folder"]
