"""safetensors: the names and shapes of a state_dict of nn.Sequential, so that
``module.load_state_dict(safetensors.torch.load_file(FILE))`` takes it; the description of the model in the metadata.

The format is short enough to be written here: the length of the header, the header as JSON, the values without a hole.
Scaling is no layer: mean, scale and fill stand in the description.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..inference import Model
from ..theta_files.description import KEY, describe
from ._again import answers
from ._linear import note, state

__all__ = ["PRECISION", "SUFFIX", "TITLE", "answers", "note", "pack"]

TITLE = "safetensors: 0.weight, 0.bias, 2.weight, … of PyTorch's nn.Sequential"
SUFFIX = ".safetensors"
PRECISION = "fp32"


def pack(model: Model, dtype: np.dtype[Any]) -> bytes:
    """The bytes of the file; equal models give equal bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", KEY: describe(model, with_vectors=True)}}
    kind, at, parts = "F32" if dtype.itemsize == 4 else "F64", 0, []
    for name, tensor in state(model, dtype).items():
        end = at + tensor.nbytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]}
        parts.append(tensor.astype(dtype.newbyteorder("<")).tobytes())
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that values lie at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
