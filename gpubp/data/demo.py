"""The example data that comes with the package: the 10,000 MNIST test images, see mnist10k.LICENSE.txt."""

from __future__ import annotations

from pathlib import Path


def demo_file() -> Path:
    """The HDF5 file: groups `train` and `test` of 5,000 rows each, X (uint8, 784 columns) and y."""
    return Path(__file__).with_name("mnist10k.h5")
