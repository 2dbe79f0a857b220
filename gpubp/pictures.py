"""Inputs that are the pixels of a picture: what shape it has, and a row of X or of Θ^(1) as one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from .errors import UsageError

_WORDS = re.compile(r"(\d{1,5})x(\d{1,5})(?:x([134]))?(:columns)?")
_LEAST = 64  # pixels: fewer are hardly a picture


@dataclass(frozen=True)
class Picture:
    """How pixels lie in a row.

    Attributes:
        height, width: in pixels.
        colours: 1 (grey), 3 or 4 numbers for each pixel, side by side.
        by_columns: whether they lie column after column, as MATLAB and Octave have them.
    """

    height: int
    width: int
    colours: int = 1
    by_columns: bool = False

    @property
    def features(self) -> int:
        """The length of a row."""
        return self.height * self.width * self.colours

    def pixels(self, row: Any) -> Any:
        """A row (features,) as a picture, (height, width) or (height, width, colours); a view where that can be."""
        if self.by_columns:
            picture = row.reshape(self.colours, self.width, self.height).transpose(2, 1, 0)
        else:
            picture = row.reshape(self.height, self.width, self.colours)
        return picture[:, :, 0] if self.colours == 1 else picture


def parse(text: str, features: int) -> Picture | None:
    """What the user says: "28x28", "32x32x3", "20x20:columns", or "none".

    Raises:
        UsageError: it is none of these, or has not as many pixels as there are features.
    """
    if text == "none":
        return None
    found = _WORDS.fullmatch(text)
    wanted = "HEIGHTxWIDTH such as 28x28 or 32x32x3, with :columns as MATLAB has them, or none"
    if found is None:
        raise UsageError(f"pictures of '{text}'", wanted=wanted)
    picture = Picture(int(found[1]), int(found[2]), int(found[3] or 1), found[4] is not None)
    if picture.features != features:
        raise UsageError(f"pictures of {text}, {picture.features} numbers", wanted=f"{features}, as x has")
    return picture


def guess(features: int, *, bytes_: bool) -> Picture | None:
    """Whether features look like pixels: bytes, and as many as a square picture has, grey or in three colours."""
    if not bytes_ or features < _LEAST:
        return None
    for colours in (1, 3):
        side = math.isqrt(features // colours)
        if side * side * colours == features:
            return Picture(side, side, colours)
    return None
