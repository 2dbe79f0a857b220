"""A checkpoint's file: what is damaged is named, long ones go past the page cache, known rows are not looked at."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_checkpoint import assert_same, record

from gpubp.checkpoint import Known, guard, layout, pack, read, table, verify, whole, write
from gpubp.errors import CheckpointError
from gpubp.optimizers import make
from gpubp.optimizers.vectors import HostVectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint-00000007.h5"


def long_record(rows: int = 3, seed: int = 1, **changes: Any) -> Any:
    """One whose state has rings with rows long enough to be pieces."""
    rng = np.random.default_rng(seed)
    state = {"Theta": rng.normal(size=9000), "S": rng.normal(size=(rows, 9000)), "iteration": 7}
    return record(7, state=state | changes)


def leaves_of(image: bytes) -> dict[str, table.Extent]:
    found, _ = table.decoded(table.encoded_in(image) or b"", len(image))
    return found.leaves


# What is damaged is named -------------------------------------------------------------------------------------------


def test_the_table_knows_where_hdf5_has_each_dataset(path):
    write(path, long_record())
    image, seen = path.read_bytes(), {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: seen.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    leaves = leaves_of(image)
    assert leaves.keys() == seen.keys()
    for name, leaf in leaves.items():
        value = seen[name]
        assert image[leaf.offset : leaf.end] == (value if isinstance(value, bytes) else value.tobytes()), name
    assert (leaves["optimizer/state/S"].piece, leaves["optimizer/state/S"].block) == (9000 * 8, 1 << 16)  # a row
    assert all(leaf.piece == leaf.length and not leaf.block for name, leaf in leaves.items() if name[-2:] != "/S")
    about = json.loads((table.encoded_in(image) or b"")[4:])["about"]
    assert "checkpoint of gpubp" in about and "docs/checkpoint-format.md" in about


def test_the_leaf_that_was_damaged_is_named_and_no_other(path):
    sound, dice = bytes(pack(long_record())), random.Random(2)
    leaves = leaves_of(sound)
    for name, leaf in leaves.items():
        for at in {leaf.offset, leaf.end - 1, dice.randrange(leaf.offset, leaf.end)}:
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
            for look in (read, verify):
                with pytest.raises(CheckpointError, match="damaged") as caught:
                    look(path)
                assert f"damaged: {name} does not have the digest" in str(caught.value)
    between = max(leaf.end for leaf in leaves.values())
    for at, says in ((516, "its table"), (table.HEADER_BLOCK + 3, "its table"), (between, "what HDF5 keeps")):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        with pytest.raises(CheckpointError, match=says):
            read(path)
    length = len(table.encoded_in(sound) or b"")
    path.write_bytes(sound[: 512 + length] + b"!" + sound[513 + length :])
    with pytest.raises(CheckpointError, match="behind its table"):
        read(path)


def test_only_what_the_optimizer_remembers_has_blocks():
    wide = record(network={"sizes": (9000, 2)}, Theta=(np.ones((2, 9001)),))
    assert not any(leaf.block for leaf in leaves_of(bytes(pack(wide))).values())


def test_every_bit_of_a_block_counts_and_so_does_its_place(path):
    sound, dice = bytes(pack(long_record())), random.Random(6)
    leaf = leaves_of(sound)["optimizer/state/S"]
    damaged = [bytearray(sound) for _ in range(200)]
    for image in damaged[:100]:
        image[dice.randrange(leaf.offset, leaf.end)] ^= 1 << dice.randrange(8)
    for image in damaged[100:]:  # two pages in each other's place
        a, b = dice.sample(range(leaf.offset, leaf.end - 4096, 4096), 2)
        image[a : a + 4096], image[b : b + 4096] = image[b : b + 4096], image[a : a + 4096]
    for image in damaged:
        path.write_bytes(image)
        with pytest.raises(CheckpointError, match="damaged: optimizer/state/S does not"):
            verify(path)


def test_several_are_named_theta_first(path):
    image = bytearray(pack(long_record()))
    for leaf in leaves_of(bytes(image)).values():
        image[leaf.offset] ^= 1
    path.write_bytes(image)
    with pytest.raises(CheckpointError, match=r"Theta/Theta1, Theta/Theta2, \w+, \w+ and \d+ more do not have"):
        read(path)


def test_what_a_cut_took_is_named(path):
    sound = bytes(pack(long_record()))
    leaf = leaves_of(sound)["Theta/Theta2"]
    for length, says in ((leaf.end, r"history"), (leaf.end - 1, r"Theta/Theta2, .* and \d+ more are cut off")):
        path.write_bytes(sound[:length])
        with pytest.raises(CheckpointError, match=says) as caught:
            read(path)
        assert ("Theta/Theta2" in str(caught.value)) == (length < leaf.end) and "Theta/Theta1" not in str(caught.value)
    path.write_bytes(sound[:600])  # the table is gone as well
    with pytest.raises(CheckpointError, match=r"it has 600 bytes and was written with [\d,]+; take"):
        read(path)


def hostile(**changes: Any) -> bytes:
    """A sealed file whose table says that."""
    image = bytes(pack(record()))
    text = json.loads((table.encoded_in(image) or b"")[4:])
    leaves = text["leaves"]
    for name, entry in changes.items():
        if name == "begins":
            text["begins"] = entry
        elif name == "rest":
            text.pop("rest")
        else:
            leaves[{"Theta1": "Theta/Theta1"}[name]] = entry
    encoded = json.dumps(text).encode()
    encoded = len(encoded).to_bytes(4, "little") + encoded
    return guard.header(encoded, len(image), 4096) + image[4096:]


@pytest.mark.parametrize(
    "changes",
    [
        {"begins": 1 << 60}, {"begins": 512}, {"begins": "4096"}, {"rest": None}, {"Theta1": [0, 8, 8, 0, "00"]},
        {"Theta1": [4096, 1 << 62, 8, 0, "00"]}, {"Theta1": [4096, 9, 8, 0, "00"]}, {"Theta1": [4096, 8, 0, 0, "00"]},
        {"Theta1": [4096, 0, 8, 0, "00"]}, {"Theta1": None}, {"Theta1": []}, {"Theta1": [4096, 8, 8, 0, "zz"]},
        {"Theta1": [9000, 7000, 7000, 0, "00"]}, {"Theta1": [4096, 8, 8, 1, "00"]}, {"Theta1": [4096, 8, 8, -1, "00"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_table_with_a_right_digest_is_not_believed_either(path, changes):
    path.write_bytes(hostile(**changes))
    for look in (read, verify):
        with pytest.raises(CheckpointError, match="nothing that gpubp wrote"):
            look(path)


# Written piece by piece ---------------------------------------------------------------------------------------------


def test_pages_are_a_file():
    dice, pages, real = random.Random(3), layout.Pages(), io.BytesIO()
    for _ in range(300):
        at, data = dice.randrange(40_000), dice.randbytes(dice.choice([1, 7, 4096, 9000]))
        for file in (pages, real):
            file.seek(at)
            assert file.write(data) == len(data) and file.tell() == at + len(data)
        start, room = dice.randrange(50_000), bytearray(dice.randrange(9000))
        mine = bytearray(len(room))
        pages.seek(start), real.seek(start)
        assert pages.readinto(mine) == real.readinto(room) and mine == room
    assert pages.between(0, pages.length) == real.getvalue()
    pages.seek(5)
    assert pages.truncate() == 5 and pages.seek(0, 2) == 5 and pages.read() == b""
    far = layout.Pages()
    far.seek(1 << 40)
    far.write(b"x")
    assert far.length == (1 << 40) + 1 and far.between((1 << 40) - 2, (1 << 40) + 1) == b"\0\0x"


def chunks(length: int, dice: random.Random) -> tuple[bytes, list[bytes]]:
    data, cuts = dice.randbytes(length), sorted(dice.randrange(length + 1) for _ in range(4))
    return data, [data[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]


@pytest.mark.parametrize("how", ["as it is", "short writes", "no O_DIRECT", "refused when written", "not even EINVAL"])
def test_a_long_file_is_whole_however_the_file_system_takes_it(path, monkeypatch, how):
    monkeypatch.setattr(whole, "PIECE", 1 << 16)
    monkeypatch.setattr(whole, "_LONG", 1 << 18)
    dice, real_write, real_fcntl, seen = random.Random(4), os.write, fcntl.fcntl, {"direct": 0, "flags": 0}

    def write_some(fd: int, data: Any) -> int:
        direct = bool(real_fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        seen["direct"] += direct
        if how == "refused when written" and direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        if how == "not even EINVAL" and direct:
            raise OSError(errno.EIO, "Input/output error")
        return real_write(fd, data[: dice.randrange(1, len(data) + 1)] if how == "short writes" else data)

    def refuse(fd: int, what: int, flags: int = 0) -> int:
        if how == "no O_DIRECT" and what == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_fcntl(fd, what, flags)

    monkeypatch.setattr(os, "write", write_some)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    for length in (0, 1, 511, 1 << 16, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 300_001, 1 << 19):
        data, parts = chunks(length, dice)
        head = dice.randbytes(min(length, 1024))
        path.unlink(missing_ok=True)
        try:
            with whole.writing_whole(path, length) as sink:
                for part in parts:
                    sink.write(part)
                sink.finish(head)
        except CheckpointError as error:
            assert how == "not even EINVAL" and "Input/output" in str(error) and not list(path.parent.iterdir())
            continue
        assert path.read_bytes() == head + data[len(head) :]
    probe = os.open(path.parent / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.fcntl(probe, fcntl.F_SETFL, os.O_DIRECT)
        possible = True
    except OSError:
        possible = False
    finally:
        os.close(probe)
    assert (seen["direct"] > 0) == (possible and how != "no O_DIRECT")


# Rows that are known ------------------------------------------------------------------------------------------------


def test_a_row_that_did_not_change_is_not_looked_at_again(path):
    checkpoint, known = long_record(), Known()
    write(path, checkpoint, known=known, versions={"S": [1, 2, 3]})
    first = path.read_bytes()
    checkpoint.state["S"][1] += 1  # this one gets a new version
    write(path, checkpoint, known=known, versions={"S": [1, 4, 3]})
    assert_same(read(path), checkpoint)
    assert first != path.read_bytes()
    checkpoint.state["S"][2] += 1  # a lie: what is not looked at is what the digest was of
    write(path, checkpoint, known=known, versions={"S": [1, 4, 3]})
    with pytest.raises(CheckpointError, match="optimizer/state/S does not have"):
        read(path)
    write(path, checkpoint, known=known)
    assert_same(read(path), checkpoint)


def test_short_rows_are_one_piece_and_always_looked_at(path):
    known, state = Known(), {"S": np.zeros((3, 5))}
    for at in range(3):
        state["S"][at] += 1
        write(path, record(7, state=state), known=known, versions={"S": [7, 7, 7]})
        verify(path)
    assert not known.rows


@pytest.mark.parametrize("name", ["lbfgs", "klbfgs"])
def test_versions_of_rings_tell_what_changed(name):
    """Rosenbrock's valley in many dimensions: after each step a row that differs has another version."""

    class Valley:
        def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
            a, b = Theta[::2], Theta[1::2]
            out[::2], out[1::2] = -400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)
            return float(np.sum(100 * (b - a * a) ** 2 + (1 - a) ** 2))

    f, optimizer = Valley(), make(name, history=3)
    state = optimizer.init(f, np.tile([-1.2, 1.0], 20))
    before: dict[tuple[str, int], tuple[Any, bytes]] = {}
    changed = same = 0
    for _ in range(20):
        assert optimizer.step(f, state) is None
        saved, versions = state.saved(), state.versions()
        for field, told in versions.items():
            for row, data in enumerate(saved[field]):
                now = told[row], data.tobytes()
                had = before.get((field, row), (None, b""))
                assert (now[0] == had[0]) <= (now[1] == had[1]), (field, row)
                changed, same = changed + (now[1] != had[1]), same + (now[1] == had[1])
                before[field, row] = now
    assert changed > 20 and same > 20
    assert isinstance(state.vectors, HostVectors)
