"""Messages between the process that trains and those that parse: a JSON object, and bytes beside it.

No pickle: what comes back has been near an untrusted file, and may be whatever a crafted one made of the process that
read it. Lengths are looked at before memory is taken for them, and what is no plain JSON counts as no answer.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEAD = struct.Struct("<IQ")
MOST_TEXT = 12 << 20  # some 30,000 datasets; what Python makes of the worst JSON of this size are 350 MB


REPLACED = "it was removed or replaced"  # what is said of a file that has no name any more


class Ended(Exception):
    """The other side is gone, or says what makes no sense."""


def send(to: socket.socket, message: dict[str, Any], *data: bytes | memoryview) -> None:
    """Send one message and bytes, piece after piece.

    Raises:
        Ended: nobody is there.
        ValueError: the message is longer than the other side takes, or holds what JSON does not have.
    """
    text = json.dumps(message, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(text) > MOST_TEXT:
        raise ValueError(f"a description of {len(text):,} bytes")
    pieces = [memoryview(piece).cast("B") for piece in data if len(piece)]
    try:
        to.sendall(_HEAD.pack(len(text), sum(map(len, pieces))) + text)
        for piece in pieces:
            to.sendall(piece)
    except OSError:
        raise Ended from None


def receive(
    of: socket.socket, into: memoryview | None = None, most: int = 0
) -> tuple[dict[str, Any], bytearray | memoryview]:
    """The next message, its bytes in `into` if it says no error.

    Args:
        into: what the bytes must fill exactly.
        most: how many bytes may come where there is no `into`.

    Raises:
        Ended: the other side is gone; it sent other or more bytes than were asked for, or no message.
        TimeoutError: the socket's time is over.
    """
    size, more = _HEAD.unpack(_exactly(of, memoryview(bytearray(_HEAD.size))))
    if size > MOST_TEXT or more > (most if into is None else len(into)):
        raise Ended
    try:
        text = str(_exactly(of, memoryview(bytearray(size))), "utf-8", "surrogatepass")
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Ended from None
    if not isinstance(message, dict):
        raise Ended
    if into is None or (more == 0 and "error" in message):
        into = memoryview(bytearray(more))
    elif len(into) != more:
        raise Ended
    return message, _exactly(of, into)


def _refuse(constant: str) -> None:
    """NaN and the infinities are no JSON."""
    raise ValueError(constant)


def _exactly(of: socket.socket, into: memoryview) -> memoryview:
    rest = into
    while len(rest):
        try:
            got = of.recv_into(rest)
        except TimeoutError:
            raise
        except OSError:
            raise Ended from None
        if got == 0:
            raise Ended
        rest = rest[got:]
    return into
