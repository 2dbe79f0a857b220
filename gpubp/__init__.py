"""gpubp: dense networks trained with the exact full-batch gradient, on a GPU or without one.

The Python door is small and stable; everything else is a room behind it. Names are imported when they are first used,
so that `import gpubp` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "GpubpError",
    "Model",
    "Network",
    "__version__",
    "cost_and_gradient",
    "export",
    "learning_curve",
    "load",
    "sweep",
    "train",
]

if TYPE_CHECKING:
    from .api import cost_and_gradient, export, learning_curve, load, sweep, train
    from .errors import GpubpError
    from .inference import Model
    from .network import Network

_ROOMS = {
    "GpubpError": "errors",
    "Model": "inference",
    "Network": "network",
    "cost_and_gradient": "api",
    "export": "api",
    "learning_curve": "api",
    "load": "api",
    "sweep": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        from importlib import import_module

        return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    raise AttributeError(f"module 'gpubp' has no attribute '{name}'")
