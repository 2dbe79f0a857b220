"""gpubp explain RUN DATA --row N"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import DATA, Listing, emit, json_option, program

if TYPE_CHECKING:
    from ..explain import Explanation

_MODES = "RUN DATA, RUN with --x and --y, --theta FILE with --x and --y, or --example"


@click.command(name="explain", short_help="One example forward and backward, every δ taken apart.")
@click.argument("run", type=DATA, required=False)
@click.argument("data", type=DATA, nargs=-1, metavar="[DATA...]")
@click.option("--row", type=click.IntRange(0), help="Which row of DATA, from 0; the first if nothing is said.")
@click.option(
    "--x",
    metavar="NAME|NUMBERS",
    help="With DATA, the dataset with the rows, as for evaluate. Without, the example itself: 0.1,0.2,…",
)
@click.option(
    "--y",
    metavar="NAME|VALUE",
    help="With DATA, the dataset with the labels. Without, what --x should give: a class, or a number for each output.",
)
@click.option("--split", help="Rows to take: train, val or test, where DATA has them.", metavar="NAME")
@click.option("--allow", metavar="DIR", help="Folder in which the source files of virtual datasets may lie.")
@click.option(
    "--theta",
    type=DATA,
    metavar="FILE",
    help="In place of RUN: Theta1, Theta2, … in .npz, .mat, HDF5 or JSON, the bias in column 0.",
)
@click.option(
    "--activation",
    cls=Listing,
    room="activation",
    metavar="NAME",
    help="With --theta: g of the hidden units, sigmoid if nothing is said; one of",
)
@click.option(
    "--cost",
    cls=Listing,
    room="cost",
    metavar="NAME",
    help="With --theta: the cost with its output function, logistic if nothing is said; one of",
)
@click.option("--example", is_flag=True, help="The small network of the course, with numbers.")
@click.option("--unit", "units", multiple=True, metavar="L:J", help="Write out unit J of layer L; may be repeated.")
@click.option("--check", "checked", is_flag=True, help="Each δ beside the finite difference of the cost in its z.")
@click.option("--literal", is_flag=True, help="Also the sums of the course's note as it writes them, without g′.")
@click.option(
    "--sign",
    type=click.Choice(["loss", "loglik"]),
    default="loss",
    help="What δ is a slope of: C = −cost(t), or the course's cost(t).",
)
@click.option(
    "--top", type=click.IntRange(0), default=8, help="Units shown of a wide layer, terms of a long sum; 0 all."
)
@click.option("--svg", type=DATA, metavar="FILE", help="Draw the network.")
@click.option("--png", type=DATA, metavar="FILE", help="Likewise, as PNG, or as PDF by its name.")
@click.option("--html", type=DATA, metavar="FILE", help="A page to explore, in one file.")
@click.option(
    "--by", type=click.Choice(["theta", "contribution"]), default="theta", help="What makes an edge of a drawing thick."
)
@click.option(
    "--image",
    metavar="HxW",
    help="x is a picture: 28x28, 32x32x3, 20x20:columns, or none; where x has bytes, it is found out.",
)
@click.option("--overwrite", is_flag=True, help="Replace the files that are written.")
@json_option
def command(run: Path | None, data: tuple[Path, ...], as_json: bool, **said: Any) -> None:
    """One example through a network, forward and backward: every z, a and δ, and the sums that they are.

    The example is a row of DATA, or --x and --y; the network is RUN's (a run folder or a checkpoint), that of --theta,
    or a small one that is built in (--example). With --check each δ is compared with the slope of the cost in its z;
    exit code 1 if one is not that slope.
    """
    from ..explain import fold as folds
    from ..explain import plain, slopes, text

    files = _files(said)
    e = _explained(run, data, said)
    units = [_unit(one) for one in said["units"]]
    top = said["top"]
    written = [text.unit(e, *unit, top=top, literal=said["literal"]) for unit in units]
    fold = folds.fold(e, top, keep=units)
    checked = slopes.check(e) if said["checked"] else None
    _write(e, fold, files, said, checked)

    result = plain.plain(e, fold)
    parts = [text.header(e), *(written or [text.tables(e, fold, literal=said["literal"])])]
    if said["literal"] and written:
        parts.append(text.literal_means(e))
    if checked is not None:
        result["check"] = checked.plain()
        parts.append(text.slopes(e, fold, checked, literal=said["literal"]))
    if files:
        result["written"] = list(files.values())
        parts.append("\n".join(f"written {path}" for path in files.values()))
    elif not written and not checked:
        how = f"{program()} explain --help"
        parts.append(f"--unit {e.L}:1 writes out one sum, --check proves each δ by its slope: see {how}")
    emit(result, as_json, "\n\n".join(parts))
    sys.exit(0 if checked is None or checked.passed else 1)


def _explained(run: Path | None, data: tuple[Path, ...], said: dict[str, Any]) -> Explanation:
    """The example that is meant, in one of four ways; what does not belong to it is refused."""
    from .. import pictures
    from ..errors import UsageError
    from ..explain import rows, seed
    from ..network import Network
    from ..theta_files import read

    ways = [name for name, is_ in (("RUN", run), ("--theta", said["theta"]), ("--example", said["example"])) if is_]
    if len(ways) != 1:
        found = " and ".join(ways) + " at once" if ways else "neither RUN nor --theta nor --example"
        raise UsageError(found, wanted=_MODES)
    of_data = ("row", "split", "allow")
    if said["example"]:
        _refuse(said, ("activation", "cost", "image", *of_data), "--example", "it has its own")
        x, y = (None if said[name] is None else rows.numbers(said[name], f"--{name}") for name in ("x", "y"))
        return seed.seed_example(said["sign"], seed.X if x is None else x, seed.Y if y is None else y)
    if not data:
        _refuse(said, of_data, "--theta" if said["theta"] else "RUN without DATA", "they are of DATA")
        for name in ("x", "y"):
            if said[name] is None:
                raise UsageError(f"no example: --{name} is missing", wanted=_MODES)
    if said["theta"]:
        found, x = read(said["theta"]), rows.numbers(said["x"], "--x")
        picture = None if said["image"] is None else pictures.parse(said["image"], found.sizes[0])
        name = f"Θ of {said['theta']}"
        if found.model is not None:  # with its own scaling and classes
            _refuse(said, ("activation", "cost"), "a whole model", "it has its own")
            return rows.typed(found.model, x, said["y"], sign=said["sign"], network=name, picture=picture)
        network, y = Network(found.sizes, said["activation"] or "sigmoid", said["cost"] or "logistic"), said["y"]
        Theta = network.pack(found.Theta)
        return rows.bare(network, Theta, x, rows.numbers(y, "--y"), sign=said["sign"], name=name, picture=picture)
    _refuse(said, ("activation", "cost"), "RUN", "it has its own")
    assert run is not None
    return _of_run(run, data, said)


def _of_run(run: Path, data: tuple[Path, ...], said: dict[str, Any]) -> Explanation:
    from .. import pictures
    from ..explain import rows
    from ..loading import load
    from ..prepare import open_for

    model = load(run)
    features, image = model.network.sizes[0], said["image"]
    guess = pictures.guess(features, bytes_=model.scaling.kind == "255")
    picture = guess if image is None else pictures.parse(image, features)
    iteration = model.reached.get("iteration")
    name = f"run {run}" + ("" if iteration is None else f", iteration {iteration:,}")
    common: dict[str, Any] = {"sign": said["sign"], "network": name, "picture": picture}
    if not data:
        return rows.typed(model, rows.numbers(said["x"], "--x"), said["y"], **common)
    dataset = open_for(model, data, x=said["x"], y=said["y"], split=said["split"], allow=said["allow"])
    try:
        return rows.row_of(model, dataset, said["row"] or 0, **common)
    finally:
        dataset.close()


def _refuse(said: dict[str, Any], names: tuple[str, ...], beside: str, why: str) -> None:
    from ..errors import UsageError

    found = [f"--{name}" for name in names if said[name] is not None]
    if found:
        raise UsageError(f"{', '.join(found)} with {beside}", wanted=f"none: {why}", do=f"say {_MODES}")


def _unit(text: str) -> tuple[int, int]:
    """Layer and unit of --unit."""
    from ..errors import UsageError

    layer, _, unit = text.partition(":")
    if not (layer.isdecimal() and unit.isdecimal() and len(text) < 20):
        raise UsageError(f"--unit {text[:40]}", wanted="LAYER:UNIT such as 2:1, the input being layer 1")
    return int(layer), int(unit)


def _files(said: dict[str, Any]) -> dict[str, Path]:
    """What is to be written, refused before the work begins where it cannot be."""
    from ..errors import DataError, UsageError

    kinds = {"svg": (".svg",), "png": (".png", ".pdf"), "html": (".html", ".htm")}
    found = {name: said[name] for name in kinds if said[name] is not None}
    for name, path in found.items():
        if path.suffix.lower() not in kinds[name]:
            raise UsageError(f"--{name} {path}", wanted=f"a name that ends in {' or '.join(kinds[name])}")
        if not path.parent.is_dir():
            raise DataError(f"there is no folder {path.parent}", do="make it first")
        if not said["overwrite"] and (path.exists() or path.is_symlink()):
            raise DataError(f"{path} exists", do="add --overwrite to replace it")
    return found


def _write(e: Explanation, fold: Any, files: dict[str, Path], said: dict[str, Any], checked: Any) -> None:
    for name, path in files.items():
        if name == "html":
            from ..explain import page

            page.write(e, fold, path, by=said["by"], checked=checked, literal=said["literal"])
        else:
            from ..explain import drawing

            drawing.save(e, fold, path, by=said["by"])
