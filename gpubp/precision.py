"""temporary"""
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from .errors import UsageError

@dataclass(frozen=True)
class Precision:
    name: str
    dtype: np.dtype
    products: str

_ALL = {p.name: p for p in (Precision("bf16", np.dtype("f4"), "bf16"), Precision("tf32", np.dtype("f4"), "tf32"), Precision("tf32x3", np.dtype("f4"), "tf32x3"), Precision("fp32", np.dtype("f4"), "exact"), Precision("fp64", np.dtype("f8"), "exact"))}

def precision(name: str) -> Precision:
    if name not in _ALL:
        raise UsageError(f"precision '{name}'", wanted=f"one of {', '.join(_ALL)}")
    return _ALL[name]
