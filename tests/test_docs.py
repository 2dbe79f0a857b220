"""What documents show is run."""

from __future__ import annotations

import json
import re
import zlib
from hashlib import blake2b
from pathlib import Path

import h5py
from running import ROOT
from test_checkpoint_file import long_record

from gpubp.checkpoint import pack, write

FORMAT = (ROOT / "docs" / "checkpoint-format.md").read_text()


def test_the_readme_shows_the_python_door_as_it_is(tmp_path, monkeypatch):
    """The README's Python block, run as it stands, after the lines that make its T1, T2, X, y and data.h5."""
    import h5py
    import numpy as np

    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code
    rng = np.random.default_rng(0)
    with h5py.File("data.h5", "w") as file:
        file["X"], file["y"] = rng.normal(size=(50, 2)), np.arange(50) % 4
    known = {"T1": np.ones((2, 3)), "T2": np.ones((4, 3)), "X": rng.normal(size=(6, 2)), "y": np.arange(6) % 4}
    names = dict(known)
    exec(code[1], names)
    assert names["J"] > 0 and [D.shape for D in (names["D1"], names["D2"])] == [(2, 3), (4, 3)]
    assert names["model"].predict(known["X"]).shape == (6,)


def damaged_by_the_document(file: bytes) -> list[str]:
    """Which leaves of a checkpoint are damaged, by docs/checkpoint-format.md alone: nothing of gpubp's is used."""

    def digest(*parts: bytes) -> bytes:
        return blake2b(b"".join(parts), digest_size=32).digest()

    def number(start: int, end: int) -> int:
        return int.from_bytes(file[start:end], "little")

    assert file[:10] == bytes.fromhex("896770756270 0d0a1a0a") and file[52:84] == digest(file[:52])
    assert number(10, 12) == 2 and number(12, 20) == len(file) and not any(file[84:512])
    end = 516 + number(512, 516)
    assert file[20:52] == digest(file[512:end])
    table = json.loads(file[516:end])
    at, rest, bad = table["begins"], [], []
    assert at >= 1024 and not at & (at - 1) and not any(file[end:at])
    for name, (first, length, long, block, wanted) in table["leaves"].items():
        rest.append(file[at:first])
        at = first + length
        pieces = [file[i : i + long] for i in range(first, at, long)]
        if block:
            steps = range(0, long, block)
            pieces = [b"".join(zlib.crc32(p[i : i + block]).to_bytes(4, "little") for i in steps) for p in pieces]
        found = [digest(piece) for piece in pieces]
        if (found[0] if len(found) == 1 else digest(*found)).hex() != wanted:
            bad.append(name)
    return bad + ["rest"] * (digest(*rest, file[at:]).hex() != table["rest"])


def test_the_document_is_enough_to_verify_a_checkpoint(tmp_path: Path):
    path = tmp_path / "checkpoint-00000007.h5"
    write(path, long_record(rows=3))  # with pieces and blocks
    image = path.read_bytes()
    assert damaged_by_the_document(image) == []
    with h5py.File(path) as file:
        places = {name: file[name].id.get_offset() for name in ("Theta/Theta2", "optimizer/state/S", "history")}  # pyright: ignore
    for name, at in places.items():
        changed = bytearray(image)
        changed[at + 3] ^= 1
        assert damaged_by_the_document(bytes(changed)) == [name]
    changed = bytearray(image)
    changed[-1] ^= 1
    assert damaged_by_the_document(bytes(changed))


def test_the_document_has_every_dataset(tmp_path: Path):
    found: list[str] = []
    (tmp_path / "c.h5").write_bytes(pack(long_record()))
    with h5py.File(tmp_path / "c.h5") as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    table = FORMAT.partition("| dataset | what |")[2].partition("\n\n")[0]
    described = set(re.findall(r"`([^`]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    groups = {name[:-2] for name in described if name.endswith("/…")} | {"Theta", "scaling"}
    assert len(found) > 10 and len(described) > 10
    assert [
        name for name in found if name not in described and not name.startswith(tuple(f"{g}/" for g in groups))
    ] == []
