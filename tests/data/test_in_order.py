"""Work shared among threads: in order, not far ahead, and nothing goes on after its end."""

from __future__ import annotations

import threading
import time

import pytest

from gpubp.data.in_order import in_order


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_and_no_more_wait_than_may(threads):
    taken, most = 0, 0

    def pieces():
        nonlocal taken
        while taken < 40:
            taken += 1
            yield taken

    def work(piece: int) -> int:
        time.sleep(0.002 * (piece % 3))
        return piece * piece

    with in_order(work, pieces(), threads=threads, ahead=3) as results:
        found = []
        for piece, result in results:
            most = max(most, taken - piece)
            found.append((piece, result))
    assert found == [(piece, piece * piece) for piece in range(1, 41)]
    assert most == (0 if threads == 1 else 3)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("end", ["error of the work", "error of the pieces", "error of the asker", "break"])
def test_nothing_is_worked_on_after_the_end(threads, end):
    at_work, stopped = [], threading.Event()

    def pieces():
        for piece in range(50):
            if piece == 20 and end == "error of the pieces":
                raise ValueError(end)
            yield piece

    def work(piece: int) -> None:
        at_work.append(piece)
        time.sleep(0.001)
        if piece == 5 and end == "error of the work":
            raise ValueError(end)
        at_work.remove(piece)

    def ask() -> None:
        with in_order(work, pieces(), threads=threads, stopped=stopped) as results:
            for piece, _ in results:
                if piece == 9 and end == "error of the asker":
                    raise ValueError(end)
                if piece == 9 and end == "break":
                    break

    if end == "break":
        ask()
    else:
        with pytest.raises(ValueError, match=end):
            ask()
    assert at_work == ([5] if end == "error of the work" else [])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpubp in order")]
    assert stopped.is_set() == (threads > 1)
