"""gpubp info [PATH]"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import click

from ._info import file_text, plain
from ._options import DATA, emit, json_option, names_options, table
from ._progress import Counter


@click.command(name="info", short_help="This machine's backends; or what a file or run holds.")
@click.argument("path", type=DATA, required=False)
@click.option(
    "--full/--quick",
    default=None,
    help="Of a data file, read all rows for the figures of its columns; or none. The default reads those that take "
    "about two seconds.",
)
@names_options
@json_option
def command(path: Path | None, full: bool | None, as_json: bool, **chosen: Any) -> None:
    """Say what this machine computes with, and why; or what PATH holds: a data file, a run or a checkpoint.

    Of a data file it shows the datasets and how they lie in the file, what training would make of them, how fast rows
    are read, what is in the columns, and what to fix.
    """
    if path is None:
        result = _machine()
    else:
        from ..describe import describe

        with Counter("rows read") as counter:
            rows = {None: "auto", True: "all", False: "none"}[full]
            result = describe(path, rows=rows, progress=counter, **chosen)
    text = (
        file_text(result) if "datasets" in result else table([(name, plain(value)) for name, value in result.items()])
    )
    emit(result, as_json, text)


def _machine() -> dict[str, Any]:
    import h5py
    import numpy as np

    from .. import __version__
    from ..backend import choose, compiled, gpu_status
    from ..backend.blas import available
    from ..backend.cores import available_cores
    from ..data.memory import default_budget

    works, why = gpu_status()
    libraries = available()
    return {
        "gpubp": __version__,
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy": np.__version__,
        "h5py": f"{h5py.__version__}, HDF5 {h5py.version.hdf5_version}",
        "blas": [f"{title} (--blas {name})" for name, title in libraries.items()],
        "mkl": libraries.get("mkl", "none: not installed (pip install 'gpubp[mkl]')"),
        "compiled": why_not if (why_not := compiled.missing()) else "yes, by numba",
        "cores": available_cores(),
        "memory for rows": f"{default_budget() / 1e9:.1f} GB",
        "gpu": why if works else f"none: {why}",
        "auto takes": choose("auto")[1],
    }
