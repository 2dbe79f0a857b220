"""--theta FILE in place of RUN, for the commands that take a model and rows."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import DATA, Command, Listing, closed_at_the_end

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..inference import Model

log = logging.getLogger("gpubp")


def model_arguments(function: Command) -> Command:
    """RUN DATA… or, with --theta, DATA… alone; and what a file of matrices does not say itself."""
    words = click.argument("words", type=DATA, nargs=-1, metavar="RUN DATA...")
    return words(theta_options(function))


def theta_options(function: Command) -> Command:
    """--theta, and what a file of matrices does not say itself."""
    for option in (
        click.option(
            "--classes",
            metavar="NAMES",
            help="With --theta: the classes in the order of the outputs, cat,dog,… or 1:10 for 1 … 10. By default "
            "those of y, or 0, 1, ….",
        ),
        click.option(
            "--cost",
            cls=Listing,
            room="cost",
            metavar="NAME",
            help="With --theta: logistic if nothing is said; one of",
        ),
        click.option(
            "--activation",
            cls=Listing,
            room="activation",
            metavar="NAME",
            help="With --theta: g of the hidden units, sigmoid if nothing is said; one of",
        ),
        click.option(
            "--theta",
            type=DATA,
            metavar="FILE",
            help="In place of RUN: what gpubp export wrote, ONNX left out; or Θ alone: Theta1, Theta2, … (the bias in "
            "column 0), scikit-learn's coefs_0, intercepts_0, …, or Linear layers of PyTorch, in .npz, .mat, Octave "
            "text, HDF5, JSON, .safetensors or .pt.",
        ),
    ):
        function = option(function)
    return function


def run_and_data(words: tuple[Path, ...], said: dict[str, Any]) -> tuple[Path | None, tuple[Path, ...]]:
    """RUN, which there is none of beside --theta, and the data files.

    Raises:
        UsageError: one of the two is missing, or an option of --theta is said without it.
    """
    from ..errors import UsageError
    from ..theta_files import is_run

    context = click.get_current_context()
    if said["theta"] is not None:
        if not words:
            raise click.UsageError("Missing argument 'DATA...'", context)
        if is_run(words[0]):
            raise UsageError("RUN and --theta at once", wanted="one of them, and DATA")
        return None, words
    if only := [f"--{name}" for name in ("activation", "cost", "classes") if said[name] is not None]:
        raise UsageError(f"{', '.join(only)} with RUN", wanted="none: it has its own", do="they belong to --theta FILE")
    if len(words) < 2:
        raise click.UsageError(f"Missing argument '{'DATA...' if words else 'RUN DATA...'}'", context)
    run = next((word for word in words[1:] if is_run(word)), None)
    if run is not None and words[0].is_file() and not is_run(words[0]):
        line = shlex.join(map(str, (run, *(word for word in words if word != run))))
        raise UsageError(f"{words[0]} in place of RUN", wanted="RUN before DATA", do=f"{context.command_path} {line} …")
    return words[0], words[1:]


def opened(
    words: tuple[Path, ...], said: dict[str, Any], *, y_required: bool = True, **names: Any
) -> tuple[Model, Dataset]:
    """The model that is meant and the rows that it is to see, whose files are closed when the command ends.

    Args:
        said: theta, activation, cost and classes, as the user said them.
        names: for `gpubp.model_rows.open_for`.

    Raises:
        GpubpError: whatever is wrong with either.
    """
    from ..communicator import current
    from ..loading import load
    from ..model_rows import open_for
    from ..theta_files import model_of, read

    run, data = run_and_data(words, said)
    if run is not None:
        ranks = current()
        # the first of several has the run folder, all have the data
        with ranks.together(), ranks.alone("reading the model"):
            model = load(run) if ranks.rank == 0 else None
        model = ranks.share(model)
        assert model is not None
        with ranks.together():
            return model, closed_at_the_end(open_for(model, data, y_required=y_required, **names))
    found = read(said["theta"])
    options = {name: said[name] for name in ("activation", "cost", "classes")}
    model = model_of(found, **options)
    dataset = closed_at_the_end(open_for(model, data, y_required=y_required, **names))
    if found.model is None and dataset.target is not None:  # also where only predictions are asked for
        model = model_of(found, y=dataset.target, **options)
    current().compare(lambda: model.Theta)  # of several ranks each has read the file
    if found.model is None:
        network = model.network
        layers = "-".join(map(str, network.sizes))
        log.info("network  %s, %s units, %s cost; x as it is", layers, network.activation, network.cost)
        log.info("outputs  %s", model.targets.describe())
    return model, dataset
