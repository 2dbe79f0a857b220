"""The command line: thin. A command is one file here: options, one library call, print.

Files that begin with an underscore are shared parts. A command is found by its file name and imported when it is
used, and what it needs is imported inside it, so that `gpubp --help` loads neither NumPy nor h5py.
"""

from ._main import cli, main

__all__ = ["cli", "main"]
