"""The example data that come with the package: whole, attributed, and made by the script that is said to make them."""

from __future__ import annotations

import runpy
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gpubp.counter_hash import hash_bits
from gpubp.data.dataset import open_dataset, splits
from gpubp.data.demo import demo_file
from gpubp.data.targets import interpret

ROOT = Path(__file__).parents[2]


def test_the_file_is_ready_to_train_on():
    path = demo_file()
    assert splits(path) == ("train", "test")
    seen = np.zeros(10, int)
    for split in ("train", "test"):
        with open_dataset(path, split=split) as data:
            assert (data.source.m, data.source.features, data.source.dtype) == (5000, 784, np.uint8)
            assert data.target is not None
            assert interpret(data.target)[1].classes == tuple(range(10))
            seen += np.bincount(data.target, minlength=10)
    # the class counts of the database's test set
    assert seen.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert path.stat().st_size < 1_700_000


def test_the_attribution_is_in_the_file_and_beside_it():
    with h5py.File(demo_file()) as file:
        attributes: dict[str, Any] = dict(file.attrs)
    assert "Yann LeCun, Corinna Cortes, Christopher J. C. Burges" in attributes["authors"]
    assert "CC BY-SA 3.0" in attributes["licence"] and "hash_bits(0, 'mnist10k', row)" in attributes["changes"]
    text = demo_file().with_name("mnist10k.LICENSE.txt").read_text()
    assert "Christopher J. C. Burges" in text and "CC BY-SA 3.0" in text


def test_the_script_makes_the_same_bytes_twice_and_shuffles_as_it_says(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (1200, 28, 28), np.uint8)
    labels = (np.arange(1200) % 10).astype("u1")
    folder = tmp_path / "idx"
    folder.mkdir()
    head = struct.pack(">BBBBIII", 0, 0, 8, 3, 1200, 28, 28)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(head + images.tobytes())
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 1200) + labels.tobytes())
    make = runpy.run_path(str(ROOT / "scripts" / "make_demo_data"))["make"]
    for name in ("a.h5", "b.h5"):
        make(folder, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    order = np.argsort(hash_bits(0, "mnist10k", np.arange(1200)))
    with open_dataset(tmp_path / "a.h5", split="test") as data:
        assert data.target is not None and np.array_equal(data.target, labels[order][600:])
        rows = np.empty((600, 784), np.uint8)
        data.source.read(0, 600, rows)
    assert np.array_equal(rows, images.reshape(1200, -1)[order][600:])
