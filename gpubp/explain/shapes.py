"""What a drawing is made of: lines, circles, boxes, words and a picture, in groups; pixels, y downwards."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from .notation import Pieces

INK, PALE, PAPER = "#222222", "#595959", "#ffffff"
POSITIVE, NEGATIVE, NEITHER = "#0072B2", "#D55E00", "#8a8a8a"  # blue and vermillion of Okabe and Ito's palette


class Line(NamedTuple):
    """From one point to another."""

    x1: float
    y1: float
    x2: float
    y2: float
    width: float
    colour: str
    dash: tuple[float, float] | None = None


class Circle(NamedTuple):
    """Filled white."""

    x: float
    y: float
    r: float
    width: float = 1.4


class Box(NamedTuple):
    """Filled; its left upper corner and its size."""

    x: float
    y: float
    width: float
    height: float
    stroke: str = INK
    fill: str = PAPER
    line: float = 1.2
    dash: tuple[float, float] | None = None


class Words(NamedTuple):
    """On a base line."""

    x: float
    y: float
    pieces: Pieces
    size: float
    anchor: Literal["start", "middle", "end"] = "middle"
    bold: bool = False
    colour: str = INK


class Raster(NamedTuple):
    """A picture of bytes, (height, width) or (height, width, 3 or 4), each pixel drawn as a square."""

    x: float
    y: float
    width: float
    height: float
    pixels: Any


Shape = Line | Circle | Box | Words | Raster


@dataclass(frozen=True)
class Group:
    """Shapes that belong to one thing.

    Attributes:
        kind: "edge", "number" (of an edge), "unit", "bias", "rest"; "" is what only is looked at.
        key: (layer, unit), or (layer, to, from) of an edge; "rest" stands for the units that are not shown.
        label: what it is, in words; "" where the words in it say so.
    """

    shapes: tuple[Shape, ...]
    kind: str = ""
    key: tuple[int | str, ...] = ()
    label: str = ""


@dataclass
class Drawing:
    """All of it; what comes later covers what came before."""

    title: str
    width: float = 0.0
    height: float = 0.0
    groups: list[Group] = field(default_factory=list)


def room(text: str | Pieces, size: float) -> float:
    """At most how wide words become: DejaVu Sans and Verdana are the widest fonts that they are set in."""
    if isinstance(text, str):
        return 0.64 * size * len(text)
    return sum(0.64 * size * len(part) * (1 if place == "on" else 0.7) for part, place in text)


def bytes_of(pixels: np.ndarray) -> np.ndarray:
    """A picture as bytes: those that it is made of, else from its smallest number to its largest."""
    low, high = (0.0, 255.0) if pixels.min() >= 0 and 1 < pixels.max() <= 255 else (pixels.min(), pixels.max())
    return np.rint((pixels - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Bytes (height, width) or (height, width, 3 or 4) as a PNG file (ISO/IEC 15948), without a package."""
    height, width = pixels.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[pixels.shape[2] if pixels.ndim == 3 else 1]
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # 0: each row as it is

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
