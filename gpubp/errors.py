"""What can go wrong, as one sentence a person can act on.

Every error that gpubp raises on purpose is a `GpubpError`. Its message is one line: what was found, what was
wanted, what to do. The command line prints that line and leaves with `exit_code`; a traceback is a bug.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """One line that a terminal only shows: names and words out of files may hold what it would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else repr(c)[1:-1] for c in text)


class GpubpError(Exception):
    """The parent of every error gpubp raises on purpose.

    Args:
        found: what was met, with its names and numbers.
        wanted: what would have been right.
        do: what the reader can do about it.

    Examples:
        >>> import gpubp
        >>> try:
        ...     gpubp.Network((400, 25, 1), cost="softmax")
        ... except gpubp.GpubpError as error:
        ...     print(error, error.exit_code, sep="\\n")
        softmax with 1 output; wanted 2 or more outputs; take --cost logistic for one 0/1 output
        2
    """

    exit_code = 3
    agreed = False  # whether all ranks have met it, so that each ends by itself

    def __init__(self, found: str, *, wanted: str = "", do: str = "") -> None:
        self.found, self.wanted, self.do = found, wanted, do
        parts = [found]
        if wanted:
            parts.append(f"wanted {wanted}")
        if do:
            parts.append(do)
        super().__init__(visible("; ".join(parts)))


class UsageError(GpubpError):
    """An option, an argument or a setting that cannot be meant."""

    exit_code = 2


class DataError(GpubpError):
    """A data file, a dataset in it, a row or a column that cannot be used."""


class CheckpointError(GpubpError):
    """A checkpoint or a run folder that cannot be read or written."""


class MismatchError(CheckpointError):
    """A sound checkpoint that belongs to something else: other data, another network, a newer format."""


class BackendError(GpubpError):
    """A device that is missing or does not work, a kernel that does not build."""


class OutOfMemory(BackendError):
    """The device's memory does not hold what was asked for; the message names a smaller request."""


class CommunicatorError(GpubpError):
    """Ranks that cannot train together: not started as one, of different data or machines, out of step."""


class OtherRankFailed(CommunicatorError):
    """Another rank failed by something that is not an error of ours; that rank shows Python's account of it."""

    exit_code = 1  # Python's, for that


class Stopped(GpubpError):
    """Someone asked to stop where there is nothing to keep yet."""
