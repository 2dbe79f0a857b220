"""A figure of Matplotlib's, which is imported when the first one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import UsageError


def missing() -> bool:
    """Whether Matplotlib is not installed."""
    try:
        import_module("matplotlib")
    except ImportError:
        return True
    return False


def require(found: str, instead: str = "") -> None:
    """Refuse to go on without Matplotlib.

    Args:
        found: what is asked for without it.
        instead: what else can be done.

    Raises:
        UsageError: it is missing.
    """
    if missing():
        raise UsageError(found, do=f"install it with pip install 'gpubp[plot]'{instead}")


def figure(width: float, height: float, **how: Any) -> Any:
    """An empty figure, inches wide and high."""
    # no pyplot: it would look for a screen, and keep every figure
    made: Any = import_module("matplotlib.figure").Figure(figsize=(width, height), **how)
    import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(made)
    return made
