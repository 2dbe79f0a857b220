"""The command line: thin. A command is one file here: options, one library call, print.

Files that begin with an underscore are shared parts. A command is found by its file name and imported when it is
used, and what it needs is imported inside it, so that `gpubp --help` loads neither NumPy nor h5py.
"""

import os
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    try:
        from ._main import main as run
    except KeyboardInterrupt:  # so early a Ctrl-C finds nobody else who would say it in a word
        os.write(2, b"gpubp: interrupted\n")
        sys.exit(130)
    run(arguments)
