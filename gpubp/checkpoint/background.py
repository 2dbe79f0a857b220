"""Writing while training goes on.

A step changes the state last, in its commit: until then the writer may read Θ and all that the optimizer remembers
where they are, and nothing is copied. So it has the passes of a step; where the disk takes longer, the commit waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import CheckpointError

GoOn = Callable[[], None]


class _GivenUp(Exception):
    """Raised in the writer when nobody wants the file any more."""


class Background:
    """One piece of work at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._done = threading.Event()  # and no join: interrupted by Ctrl-C, that takes a thread for ended that is not
        self._done.set()
        self._error: BaseException | None = None
        self._unwanted = False

    def begin(self, work: Callable[[GoOn], object]) -> None:
        """Begin to work once the work before is done. `work` gets a function to call now and then.

        Raises:
            Exception: that of the work before.
            CheckpointError: the system gives no thread.
        """
        self.settle()

        def run() -> None:
            try:
                work(self._go_on)
            except BaseException as error:
                self._error = error
            finally:
                self._done.set()

        self._done.clear()
        # a daemon: a second Ctrl-C ends the process even while the system brings bytes to a slow disk
        try:
            threading.Thread(target=run, name="gpubp-checkpoint", daemon=True).start()
        except RuntimeError as error:
            self._done.set()  # nothing was begun: nobody must wait for it
            wanted = "one more than ulimit -u or the container's limit of processes allows"
            raise CheckpointError(f"no thread to write a checkpoint with: {error}", wanted=wanted) from error

    def settle(self) -> None:
        """Wait until what was begun is done.

        Raises:
            Exception: that of the work.
        """
        self._done.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def busy(self) -> bool:
        """Whether what was begun is not done yet."""
        return not self._done.is_set()

    def give_up(self) -> None:
        """Have the work end soon, whatever became of it."""
        self._unwanted = True
        self._done.wait(timeout=2.0)  # seconds: a write or an fsync cannot be interrupted
        self._error = None

    def _go_on(self) -> None:
        if self._unwanted:
            raise _GivenUp
