"""What a person sees while a run works: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from contextlib import suppress
from typing import Any

import click

log = logging.getLogger("gpubp")

_BAR = 26  # columns of the bar, the slash and the time left, beside the two counts
LINE_EVERY = 5.0  # seconds between log lines where stderr is no terminal


def on_terminal() -> bool:
    """Whether a person sees stderr as it comes."""
    return sys.stderr is not None and sys.stderr.isatty()


def columns() -> int:
    """How wide that person's terminal is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


class Counter:
    """Shows how much of something is done: a line that renews itself on a terminal, a log line now and then elsewhere.

    Called with (done, in all); use as a context manager.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._quiet = log.level > logging.INFO
        self._terminal = on_terminal() and not self._quiet
        self._spoke = time.monotonic()
        self._shown = False

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def __call__(self, done: int, total: int) -> None:
        if self._quiet or time.monotonic() - self._spoke < (0.2 if self._terminal else LINE_EVERY):
            return
        self._spoke = time.monotonic()
        text = f"{done:,} of {total:,} {self._noun}"
        if self._terminal:
            with suppress(OSError):  # a terminal that is gone is no reason to end a run
                click.echo(f"\r\x1b[K{text}", err=True, nl=False)
            self._shown = True
        else:
            log.info(text)

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._shown:
            with suppress(OSError):
                click.echo("\r\x1b[K", err=True, nl=False)
            self._shown = False


class Display:
    """A training callback that shows where the run is; use as a context manager.

    The bar counts iterations up to the limit; the text has J, the validation cost and the lowest so far, max|∇J|, rows
    per second, evaluations, and passes where more than these was charged.
    """

    def __init__(self) -> None:
        self.scanned = Counter("rows read")  # shown during the first reading of the data
        self._bar: Any = None
        self._quiet = log.level > logging.INFO
        self._terminal = on_terminal() and not self._quiet
        self._m = self._limit = 0
        self._began = self._spoke = time.monotonic()
        self._first = 0
        self._first_iteration = 0
        self._last: Any = None
        self._lowest = math.inf  # validation cost so far

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def prepared(self, ready: Any) -> None:
        """The run is about to begin: say what was chosen."""
        self.scanned.clear()
        for name, choice in ready.choices.items():
            log.info("%-8s %s", name, choice)
        self._m, self._limit = ready.rows.m, ready.job.iterations
        self._lowest = ready.lowest_validation
        self._began = time.monotonic()

    def __call__(self, progress: Any, state: Any) -> None:
        """One iteration is done."""
        if self._last is None:
            self._first, self._first_iteration = progress.evaluations - 1, progress.iteration - 1
        self._last = progress
        if progress.validation is not None:
            self._lowest = min(self._lowest, progress.validation)
        now = time.monotonic()
        if self._terminal:
            with suppress(OSError):
                self._draw(progress)
        elif not self._quiet and now - self._spoke >= LINE_EVERY:
            self._spoke = now
            log.info("iteration %d of %d  %s%s", progress.iteration, self._limit, self._text(), self._left())

    def _draw(self, progress: Any) -> None:
        """The bar on the terminal."""
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._limit,
                label="",
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda _: self._text(columns() - _BAR - 2 * len(str(self._limit))),
                bar_template="%(label)s [%(bar)s] %(info)s",
                width=8,
            ).__enter__()
            self._bar.update(progress.iteration - 1)
        self._bar.update(1)

    def _text(self, room: int = 200) -> str:
        """The figures in order of weight, as many as there is room for."""
        p = self._last
        if p is None:
            return ""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (p.evaluations - self._first) * self._m / seconds
        parts = [f"J {p.J:.6g}", f"|∇J| {p.gradient:.1e}", f"{rate:,.0f} rows/s", f"evaluations {p.evaluations}"]
        if p.passes != p.evaluations:
            parts.append(f"passes {p.passes:,.0f}")
        if p.validation is not None:
            best = f" (best {self._lowest:.5g})" if self._lowest < p.validation else ""
            parts.insert(1, f"validation {p.validation:.5g}{best}")
        while len(parts) > 1 and len("  ".join(parts)) > room:
            parts.pop()
        return "  ".join(parts)

    def _left(self) -> str:
        done = self._last.iteration - self._first_iteration
        left = (time.monotonic() - self._began) / done * (self._limit - self._last.iteration)
        return f"  {left:.0f} s left at most"

    def _close(self) -> None:
        self.scanned.clear()
        if self._bar is not None:
            with suppress(OSError):
                self._bar.__exit__(None, None, None)
            self._bar = None
