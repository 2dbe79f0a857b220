"""Messages between the process that trains and those that parse: a JSON object, and bytes beside it.

No pickle: what comes back has been near an untrusted file. Lengths are looked at before memory is taken for them.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEAD = struct.Struct("<IQ")
MOST_TEXT, MOST_BYTES = 256 << 20, 1 << 40


class Ended(Exception):
    """The other side is gone, or says what makes no sense."""


def send(to: socket.socket, message: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Send one message.

    Raises:
        Ended: nobody is there.
    """
    text = json.dumps(message).encode()
    try:
        to.sendall(_HEAD.pack(len(text), len(data)) + text)
        if len(data):
            to.sendall(data)
    except OSError:
        raise Ended from None


def receive(
    of: socket.socket, into: memoryview | None = None, most: int = MOST_BYTES
) -> tuple[dict[str, Any], bytearray | memoryview]:
    """The next message, its bytes in `into` where they fit exactly.

    Raises:
        Ended: the other side is gone, it sent more than `most` bytes, or no message.
        TimeoutError: the socket's time is over.
    """
    size, more = _HEAD.unpack(_exactly(of, memoryview(bytearray(_HEAD.size))))
    if size > MOST_TEXT or more > most:
        raise Ended
    try:
        message = json.loads(bytes(_exactly(of, memoryview(bytearray(size)))))
    except ValueError:
        raise Ended from None
    if not isinstance(message, dict):
        raise Ended
    if into is None or len(into) != more:
        if into is not None and "error" not in message:
            raise Ended
        into = memoryview(bytearray(more))
    return message, _exactly(of, into)


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
