"""gpubp export RUN --to FORMAT -o FILE"""

from __future__ import annotations

from pathlib import Path

import click

from ._options import DATA, Listing, emit, json_option, table


@click.command(name="export", short_help="Write a model as ONNX, safetensors, NumPy, MATLAB or PyTorch.")
@click.argument("run", type=DATA)
@click.option("--to", cls=Listing, room="exporting", metavar="FORMAT", help="By default what FILE ends in. One of")
@click.option("-o", "--out", type=DATA, metavar="FILE", help="By default the run's name with the format's ending.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp64"]),
    help="Of the numbers in FILE; by default fp64 in npz and mat, fp32 in the others.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(run: Path, to: str | None, out: Path | None, precision: str | None, overwrite: bool, as_json: bool) -> None:
    """Write RUN's model, whole, into a file that other programs read: the network, Θ, how x is scaled, what a missing
    value is replaced by, the names of the classes.

    onnx is a graph from x as it is stored to the name of the class. npz and mat have Ng's matrices Theta1, Theta2, …,
    the bias in column 0. safetensors and torch have the weights of PyTorch's nn.Sequential, and need x scaled.

    The file is loaded again and its answers on random rows compared with the model's before it gets its name.
    RUN is a run folder, a checkpoint, or an export that gpubp reads (`--theta`). Nothing is pickled by gpubp.
    """
    from ..errors import UsageError
    from ..exporting import export, format_of, suffix_of
    from ..theta_files import read

    to = format_of(to, out)
    out = out or Path(f"{run.resolve().name.removesuffix(run.suffix if run.is_file() else '')}{suffix_of(to)}")
    found = read(run)
    if found.model is None:
        raise UsageError(f"{run} holds matrices alone", wanted="a run, a checkpoint or an export")
    written = export(found.model, out, to, precision=precision, overwrite=overwrite)
    result = vars(written)
    lines = [
        ("written", written.path),
        ("format", f"{to}, {written.precision}, {written.bytes:,} bytes"),
        ("compared", f"loaded again: outputs differ by {written.difference:.2g} at most"),
    ]
    emit(result, as_json, table(lines + [("use", written.note)] * bool(written.note)))
