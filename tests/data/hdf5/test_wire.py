"""Messages between processes: what is sent comes back, and what is no message ends the talk without harm."""

from __future__ import annotations

import json
import socket
import struct
import threading

import pytest

from gpubp.data.hdf5 import wire
from gpubp.data.hdf5.wire import Ended, receive, send


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def raw(theirs: socket.socket, text: bytes, more: int = 0, data: bytes = b"", size: int | None = None) -> None:
    theirs.sendall(struct.pack("<IQ", len(text) if size is None else size, more) + text + data)


def test_there_and_back(ends):
    ours, theirs = ends
    given = {"é": [1, None, "x" * 1000, "名\udcff\x1b"]}
    send(theirs, given, b"abc", memoryview(b"defg"), b"")
    message, data = receive(ours, most=7)
    assert message == given and bytes(data) == b"abcdefg"
    into = bytearray(3)
    send(theirs, {}, b"xyz")
    assert receive(ours, memoryview(into))[0] == {} and into == b"xyz"
    send(theirs, {"error": "no"})
    message, data = receive(ours, memoryview(into))
    assert message["error"] == "no" and not data and into == b"xyz"


def test_more_than_a_socket_takes_at_once(ends):
    ours, theirs = ends
    data = bytes(range(256)) * 20_000
    sender = threading.Thread(target=send, args=(theirs, {"n": 1}, data))
    sender.start()
    assert bytes(receive(ours, most=len(data))[1]) == data
    sender.join()


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"3", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff{}", b'{"a": ' + b"1" * 5000 + b"}",
     b"[" * 100_000, b'{"a": ' * 100_000],
)  # fmt: skip
def test_what_is_no_message(text, ends):
    ours, theirs = ends
    sender = threading.Thread(target=raw, args=(theirs, text))
    sender.start()
    with pytest.raises(Ended):
        receive(ours)
    sender.join()


@pytest.mark.parametrize("more", [1, 8, 1 << 40, (1 << 64) - 1])
def test_no_memory_is_taken_for_bytes_that_nobody_asked_for(more, ends):
    ours, theirs = ends
    raw(theirs, b"{}", more)
    with pytest.raises(Ended):
        receive(ours)


def test_no_memory_is_taken_for_a_message_without_end(ends):
    ours, theirs = ends
    raw(theirs, b"", size=wire.MOST_TEXT + 1)
    with pytest.raises(Ended):
        receive(ours)
    with pytest.raises(ValueError, match="a description of"):
        send(theirs, {"a": "x" * wire.MOST_TEXT})


@pytest.mark.parametrize("count", [0, 2, 4])
def test_bytes_that_do_not_fit(count, ends):
    ours, theirs = ends
    send(theirs, {}, bytes(count))
    with pytest.raises(Ended):
        receive(ours, memoryview(bytearray(3)))


def test_an_error_does_not_bring_bytes_along(ends):
    ours, theirs = ends
    raw(theirs, json.dumps({"error": "x"}).encode(), 1 << 30)
    with pytest.raises(Ended):
        receive(ours, memoryview(bytearray(3)))


def test_nobody_there(ends):
    ours, theirs = ends
    theirs.sendall(b"\x05")
    theirs.close()
    with pytest.raises(Ended):
        receive(ours)
    with pytest.raises(Ended):
        send(ours, {})


def test_silence_is_told_from_an_end(ends):
    ours, _ = ends
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        receive(ours)


def test_only_what_json_has_is_sent(ends):
    with pytest.raises(ValueError):
        send(ends[0], {"a": float("nan")})
