"""gpubp check RUN DATA"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..precision import LADDER
from ._options import DATA, closed_at_the_end, data_argument, emit, engine_options, json_option, names_options

log = logging.getLogger("gpubp")


@click.command(name="check", short_help="The numerical gradient beside backpropagation's.")
@click.argument("run", type=DATA)
@data_argument
@click.option("--rows", type=click.IntRange(1), default=200, help="How many rows of DATA to take.")
@click.option("--elements", type=click.IntRange(0), default=20, help="How many elements of each Θ^(l); 0 for all.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Which elements, and the directions.")
@click.option(
    "--precision",
    type=click.Choice([*LADDER, "all"]),
    default="fp64",
    help="Of the backpropagation that is checked; all: each that the backend has.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="The largest relative error; the default is 1e-7 for fp64, 20 times the rounding of the others.",
)
@names_options
@engine_options
@json_option
def command(
    run: Path, data: tuple[Path, ...], rows: int, elements: int, seed: int, precision: str, tolerance: float | None,
    x: str | None, y: str | None, weights: str | None, split: str | None,
    allow: str | None, as_json: bool, **engine: Any,
) -> None:  # fmt: skip
    """Check backpropagation on RUN's own Θ and DATA's own rows.

    The slopes of J are taken by differences in plain float64 on the CPU; the gradient beside them is that of --backend,
    --kernel and --precision. Of each Θ^(l) a sample of elements is compared, and the slope along random directions,
    which sees every element.

    Exit code 1 unless every layer passes: FAIL, or UNDECIDED where the differences can tell nothing.
    """
    from ..backend import choose
    from ..diagnostics import gradient_check, numerical_slopes, reference
    from ..loading import load
    from ..model_rows import first_rows, open_for, rows_for
    from ..objective import Objective
    from ..precision import on

    model = load(run)
    backend, about = choose(engine.pop("backend"), **engine)
    names = [name for name in LADDER if name in backend.precisions] if precision == "all" else [precision]
    on(backend, names[0])  # one that it lacks is refused before the data are read
    opened = closed_at_the_end(open_for(model, data, x=x, y=y, weights=weights, split=split, allow=allow))
    few = rows_for(model, first_rows(opened, rows, gaps=model.fill is not None), labelled=True)
    log.info("%-8s %s", "backend", about)
    slopes, kernel = None, ""
    checks: list[Any] = []
    for name in reversed(names):
        objective = Objective(model.network, few, model.lambda_, backend=backend, precision=name)
        if slopes is None:
            slopes = numerical_slopes(reference(objective), model.Theta, elements=elements, seed=seed)
        checks.append(gradient_check(objective, model.Theta, slopes=slopes, tolerance=tolerance))
        kernel = objective.kernel
        objective.close()
    assert slopes is not None
    verdicts = [check.verdict for check in checks]
    verdict = next((one for one in ("FAIL", "UNDECIDED") if one in verdicts), "PASS")
    about_all = {
        "rows": few.m - few.dropped, "lambda": model.lambda_, "backend": backend.kind, "kernel": kernel,
        "noise": slopes.noise, "evaluations": slopes.evaluations,
    }  # fmt: skip
    found = [check.asdict() for check in checks]
    result = {**found[0], **about_all}
    if precision == "all":
        result = {"passed": verdict == "PASS", "verdict": verdict, **about_all, "checks": found}
    engine_name = f"{backend.kind.upper()} {kernel}"
    emit(result, as_json, "\n\n".join(_text(one, about_all, engine_name) for one in found))
    sys.exit(0 if verdict == "PASS" else 1)


_HEAD: tuple[str, ...] = (
    "",
    "elements",
    "relative error",
    "every element",
    "verdict",
    "largest difference: numerical, backprop",
)


def _text(check: dict[str, Any], about: dict[str, Any], engine: str) -> str:
    """One check for a person."""
    rows: list[tuple[str, ...]] = [_HEAD]
    said: list[str] = []
    for layer in check["layers"]:
        name, worst = f"Θ^({layer['layer']})", layer["worst"]
        difference = ""
        if worst:
            difference = f"{worst['name']}  {worst['numerical']:.12g}, {worst['backprop']:.12g}"
        judged = layer["elements"] - layer["kinks"] - layer["unclear"]
        elements = f"{judged}" if judged == layer["elements"] else f"{judged} of {layer['elements']}"
        rows.append((name, elements, *_errors(layer), layer["verdict"], difference))
        if layer["why"]:
            said.append(f"{name}: {layer['why']}")
    whole = check["whole"]
    rows.append(("all", "", "", _number(whole["directional"]), whole["verdict"], ""))
    lines = [*_aligned(rows), *said]
    end = f"{check['verdict']}: {about['rows']} rows, {engine} {check['precision']}, λ = {about['lambda']:g},"
    lines.append(f"{end} wanted {check['tolerance']:g} or less")
    if check["verdict"] == "UNDECIDED":
        lines.append("this is no PASS: take fewer rows (--rows), or an earlier checkpoint, where slopes are larger")
    return "\n".join(lines)


def _errors(layer: dict[str, Any]) -> tuple[str, str]:
    return _number(layer["error"]), _number(layer["directional"])


def _number(error: float | None) -> str:
    return "-" if error is None else f"{error:.2e}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: names and words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    sides = "<>>><<"
    return ["  ".join(f"{t:{s}{w}}" for t, s, w in zip(row, sides, widths, strict=True)).rstrip() for row in rows]
