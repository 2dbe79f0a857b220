"""PyTorch's own file: a state_dict for nn.Sequential, which ``torch.load(FILE, weights_only=True)`` takes.

Such a file is an archive around a pickle that PyTorch itself writes: PyTorch must be installed. It is read again with
``weights_only=True``, which makes nothing but tensors of it. The description of the model is in what the state_dict
says of itself, so that `load_state_dict` meets layers alone.
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..inference import Model
from ..theta_files.description import KEY, TORCH_KEY, describe
from ._again import answers as of_gpubp
from ._linear import MODULES, OUTPUTS, modules, note, state

__all__ = ["PRECISION", "SUFFIX", "TITLE", "answers", "note", "pack"]

TITLE = "PyTorch: a state_dict of nn.Sequential (needs PyTorch)"
SUFFIX = ".pt"
PRECISION = "fp32"


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise UsageError(
            "an export to torch without PyTorch", wanted="PyTorch", do="pip install torch, or take --to safetensors"
        ) from None


def _modules(model: Model) -> list[str]:
    if (found := modules(model)) is None:
        network = model.network
        raise UsageError(
            f"{network.activation} with {network.cost} in PyTorch",
            wanted=f"one of {', '.join(MODULES)} with one of {', '.join(OUTPUTS)}",
            do="take --to safetensors",
        )
    return found


def _sequential(torch: Any, model: Model, dtype: Any) -> Any:
    """The module, without weights of its own."""
    layers = []
    for text in _modules(model):
        name, _, rest = text.partition("(")
        words = [part for part in rest.removesuffix(")").split(", ") if part]
        numbers = [float(word) if "." in word else int(word) for word in words if "=" not in word]
        named = dict(word.replace("'", "").split("=") for word in words if "=" in word)
        layers.append(getattr(torch.nn, name)(*numbers, **named))
    return torch.nn.Sequential(*layers).to(dtype)


def pack(model: Model, dtype: np.dtype[Any]) -> bytes:
    """The bytes of the file.

    Raises:
        UsageError: PyTorch is missing, or has no such activation or cost.
    """
    _modules(model)  # before PyTorch is asked for: to install it would not help
    torch = _torch()
    module = _sequential(torch, model, getattr(torch, dtype.name))
    module.load_state_dict({name: torch.from_numpy(value) for name, value in state(model, dtype).items()})
    found = module.state_dict()
    found._metadata[TORCH_KEY] = {KEY: describe(model, with_vectors=True)}
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


def answers(path: Path, model: Model, X: np.ndarray) -> tuple[np.ndarray, None]:
    """By PyTorch, and by gpubp out of the same file.

    Raises:
        DataError: the two differ.
    """
    torch = _torch()
    again, _ = of_gpubp(path, model, X)
    loaded = torch.load(path, weights_only=True)
    module = _sequential(torch, model, loaded["0.weight"].dtype)
    module.load_state_dict(loaded)
    x = X.astype(np.float64)
    x = np.where(np.isnan(x), model.fill, x) if model.fill is not None else x
    x = torch.from_numpy(model.scaling.apply(x)).to(loaded["0.weight"].dtype)
    with torch.no_grad():
        z = module(x)
        h = {"torch.sigmoid(z)": torch.sigmoid, "torch.softmax(z, dim=1)": lambda z: torch.softmax(z, dim=1)}.get(
            OUTPUTS[model.network.cost], lambda z: z
        )(z)
    h = h.double().numpy()
    if not np.allclose(h, again, rtol=1e-4, atol=1e-5):
        raise DataError(f"{path}: PyTorch's outputs differ by {np.abs(h - again).max():.3g}", wanted="the same")
    return h, None
