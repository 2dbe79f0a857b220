"""gpubp explain RUN DATA --row N"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import DATA, emit, json_option, program
from ._theta import opened, run_and_data, theta_options

if TYPE_CHECKING:
    from ..explain import Explanation
    from ..inference import Model

_MODES = "RUN or --theta FILE, with DATA or with --x and --y; or --example"
_OF_DATA = ("row", "split", "allow")


@click.command(name="explain", short_help="One example forward and backward, every δ taken apart.")
@click.argument("words", type=DATA, nargs=-1, metavar="[RUN] [DATA...]")
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
@theta_options
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
def command(words: tuple[Path, ...], as_json: bool, **said: Any) -> None:
    """One example through a network, forward and backward: every z, a and δ, and the sums that they are.

    The example is a row of DATA, or --x and --y; the network is RUN's (a run folder or a checkpoint), that of --theta
    in place of RUN, or a small one that is built in (--example). With --check each δ is compared with the slope of the
    cost in its z; exit code 1 if one is not that slope.
    """
    from ..explain import fold as folds
    from ..explain import plain, slopes, text

    files = _files(said)
    e = _explained(words, said)
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


def _explained(words: tuple[Path, ...], said: dict[str, Any]) -> Explanation:
    """The example that is meant; what does not belong to it is refused."""
    from ..errors import UsageError
    from ..explain import rows, seed

    file = said["theta"]
    if said["example"]:
        if words or file:
            raise UsageError(f"{'RUN' if words else '--theta'} and --example at once", wanted=_MODES)
        _refuse(said, ("activation", "cost", "classes", "image", *_OF_DATA), "--example", "it has its own")
        x, y = (None if said[name] is None else rows.numbers(said[name], f"--{name}") for name in ("x", "y"))
        return seed.seed_example(said["sign"], seed.X if x is None else x, seed.Y if y is None else y)
    if not words and not file:
        raise UsageError("neither RUN nor --theta nor --example", wanted=_MODES)
    if not file:
        _refuse(said, ("activation", "cost", "classes"), "RUN", "it has its own")
    if len(words) > (not file):
        return _of_data(words, said)
    _refuse(said, _OF_DATA, "--theta without DATA" if file else "RUN without DATA", "they are of DATA")
    for name in ("x", "y"):
        if said[name] is None:
            raise UsageError(f"no example: --{name} is missing", wanted=_MODES)
    return _of_numbers(words, said)


def _of_data(words: tuple[Path, ...], said: dict[str, Any]) -> Explanation:
    from ..explain import rows

    run, _ = run_and_data(words, said)
    model, dataset = opened(words, said, **{name: said[name] for name in ("x", "y", "split", "allow")})
    return rows.row_of(model, dataset, said["row"] or 0, **_told(run, model, said))


def _of_numbers(words: tuple[Path, ...], said: dict[str, Any]) -> Explanation:
    from .. import pictures
    from ..explain import rows
    from ..loading import load
    from ..network import Network
    from ..theta_files import read

    x, y = rows.numbers(said["x"], "--x"), said["y"]
    if not said["theta"]:
        model = load(words[0])
        return rows.typed(model, x, y, **_told(words[0], model, said))
    found = read(said["theta"])
    if found.model is not None:  # with its own scaling and classes
        _refuse(said, ("activation", "cost", "classes"), "a whole model", "it has its own")
        return rows.typed(found.model, x, y, **_told(None, found.model, said))
    _refuse(said, ("classes",), "--x", "--y has the number of the output, from 1")
    network = Network(found.sizes, said["activation"] or "sigmoid", said["cost"] or "logistic")
    picture = None if said["image"] is None else pictures.parse(said["image"], found.sizes[0])
    name, y = f"Θ of {said['theta']}", rows.numbers(y, "--y")
    return rows.bare(network, network.pack(found.Theta), x, y, sign=said["sign"], name=name, picture=picture)


def _told(run: Path | None, model: Model, said: dict[str, Any]) -> dict[str, Any]:
    """Where the model comes from, for people, and what picture its x is."""
    from .. import pictures

    features, image = model.network.sizes[0], said["image"]
    guess = pictures.guess(features, bytes_=model.scaling.kind == "255")
    iteration = model.reached.get("iteration")
    name = f"Θ of {said['theta']}" if run is None else f"run {run}"
    return {
        "sign": said["sign"],
        "network": name if iteration is None else f"{name}, iteration {iteration:,}",
        "picture": guess if image is None else pictures.parse(image, features),
    }


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
    from ..errors import UsageError
    from ..results import refuse_target

    kinds = {"svg": (".svg",), "png": (".png", ".pdf"), "html": (".html", ".htm")}
    found = {name: said[name] for name in kinds if said[name] is not None}
    for name, path in found.items():
        if path.suffix.lower() not in kinds[name]:
            raise UsageError(f"--{name} {path}", wanted=f"a name that ends in {' or '.join(kinds[name])}")
        refuse_target(path, f"--{name}", overwrite=said["overwrite"])
    return found


def _write(e: Explanation, fold: Any, files: dict[str, Path], said: dict[str, Any], checked: Any) -> None:
    for name, path in files.items():
        if name == "html":
            from ..explain import page

            page.write(e, fold, path, by=said["by"], checked=checked, literal=said["literal"])
        else:
            from ..explain import drawing

            drawing.save(e, fold, path, by=said["by"])
