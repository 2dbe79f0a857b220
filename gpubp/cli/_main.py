"""The group `gpubp`: finds commands, reads the configuration file, turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import logging
import os
import pkgutil
import sys
import tomllib
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import __version__
from ..errors import GpubpError, UsageError, visible
from . import _ranks
from ._numbers import worded
from ._progress import on_terminal


class Commands(click.Group):
    """The commands are the files of this folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        modules = pkgutil.iter_modules([str(Path(__file__).parent)])
        return sorted(m.name.replace("_", "-") for m in modules if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__).command
        for option in command.params:
            if isinstance(option, click.Option):  # its variable is named as the option is, not as our argument
                option.envvar = f"GPUBP_{cmd_name}_{long_name(option)}".upper().replace("-", "_")
                option.type = worded(option.type)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        _ranks.leave_to_the_first(name)
        if name and command:
            known = [str(option.envvar) for option in command.params if isinstance(option, click.Option)]
            prefix = f"GPUBP_{name}_".upper().replace("-", "_")
            for variable in os.environ:
                if variable.startswith(prefix) and variable not in known:
                    near = get_close_matches(variable.removeprefix(prefix), [v.removeprefix(prefix) for v in known])
                    such = f", such as {' or '.join(prefix + one for one in near)}" if near else ""
                    line = f"{ctx.command_path} {name} --help"
                    raise click.UsageError(
                        f"the environment has {variable}; wanted {prefix} and an option's name{such}; {line} lists them"
                    )
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # Click would make a plain failure of it, code 1
            sys.stdout = None
            raise SystemExit(141) from None


def long_name(option: click.Option) -> str:
    """What the user calls it: the long form without its dashes."""
    return next(name for name in option.opts if name.startswith("--")).lstrip("-")


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Defaults from a TOML file: one table per command, keys as the options are written."""
    if path is None:
        return
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise click.UsageError(f"{path}: {words}; wanted a TOML file with a table for each command") from None
    group = ctx.command
    assert isinstance(group, Commands)
    defaults: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        command = group.get_command(ctx, name)
        if command is None or not isinstance(table, dict):
            raise click.UsageError(
                f"{path}: '{name}' is no command; wanted a table of {', '.join(group.list_commands(ctx))}"
            )
        keys = {long_name(option): option for option in command.params if isinstance(option, click.Option)}
        for key, value in table.items():
            if (option := keys.get(key.replace("_", "-"))) is None:
                raise click.UsageError(f"{path}: [{name}] has the key '{key}'; wanted one of {', '.join(sorted(keys))}")
            listed = option.multiple or isinstance(option.type, click.types.StringParamType)
            if isinstance(value, list) and listed and all(isinstance(v, str | int) for v in value):
                value = [str(v) for v in value] if option.multiple else ",".join(map(str, value))
            elif isinstance(value, bool) != bool(option.is_flag) or not isinstance(value, str | int | float):
                wanted = "true or false" if option.is_flag else "text or a number"
                raise click.UsageError(f"{path}: [{name}] {key} is a {type(value).__name__}; wanted {wanted}")
            elif not option.is_flag:
                value = str(value)  # read as from the command line
            defaults.setdefault(name, {})[str(option.name)] = value
    ctx.default_map = defaults


@click.group(
    cls=Commands,
    context_settings={
        "auto_envvar_prefix": "GPUBP",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
    },
    epilog="Every option can be given as --option, as the environment variable GPUBP_COMMAND_OPTION "
    "(GPUBP_TRAIN_HIDDEN), or in a TOML file (--config), in this order of precedence. "
    "Results go to stdout, logs to stderr. "
    "Exit codes: 0 converged or limit reached, 1 numerical failure, 2 usage, 3 data, checkpoint or device, "
    "75 stopped and to be resumed, 129, 130 and 143 stopped by a signal.",
)
@click.version_option(__version__, prog_name="gpubp")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with defaults: one table per command.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings only; no progress.")
def cli(verbose: bool, quiet: bool) -> None:
    """Dense networks trained with the exact full-batch gradient, on a GPU or without one.

    Begin with `gpubp demo`.
    """
    logger = logging.getLogger("gpubp")
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Stderr())
    _ranks.quiet_log(logger)


class _Stderr(logging.Handler):
    """Log lines on whatever stderr is now; warnings say that they are."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        prefix = "\r\x1b[K" + prefix if on_terminal() else prefix  # where a bar may be, in its place
        with suppress(OSError):  # a log that cannot be written is no reason to end a run
            click.echo(prefix + "\n".join(map(visible, record.getMessage().split("\n"))), err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    if sys.platform == "win32":
        click.echo(
            "gpubp: error: Windows is not supported; run gpubp inside WSL (Windows Subsystem for Linux)", err=True
        )
        sys.exit(UsageError.exit_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek gets a "?" and not a traceback
    _ranks.quiet()
    try:
        code, line, error = _run(arguments)
    except Exception as unexpected:
        _ranks.fell(unexpected)
    if error is not None:
        code, line = _ranks.agreed(code, line, error)
    with suppress(OSError):
        if line:
            click.echo(f"gpubp: {line}", err=True)
    _ranks.end(code, error)


class Ended(NamedTuple):
    """How a command ended: its exit code, the line that says what went wrong, and the error that it was, if any."""

    code: int
    line: str = ""
    error: BaseException | None = None


def _run(arguments: list[str] | None) -> Ended:
    """Run the command line."""
    try:
        # scripts/dev says how it was called, so that hints can be typed as they stand
        program = os.environ.get("GPUBP_PROGRAM", "gpubp")
        cli.main(args=arguments, prog_name=program, standalone_mode=False)
        return _flushed(0)
    except SystemExit as end:
        if end.code == 141:  # as `Commands.invoke` says it
            return Ended(141, "", end)
        return _flushed(end.code if isinstance(end.code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        _ranks.leave_to_the_first(None)
        error.show()
        return Ended(2)
    except click.ClickException as error:
        ctx = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see {ctx.command_path} --help" if ctx else ""
        message = error.format_message()
        return Ended(error.exit_code, f"error: {message.removesuffix('.') if hint else message}{hint}", error)
    except GpubpError as error:
        return Ended(error.exit_code, f"error: {' '.join(str(error).split())}", error)
    except (KeyboardInterrupt, click.Abort) as error:
        return Ended(130, "interrupted", error)
    except BrokenPipeError as error:
        # the reader of our stdout went away: nothing is left to say, and Python must not try at exit
        sys.stdout = None
        return Ended(141, "", error)
    except OSError as error:
        sys.stdout = None
        return Ended(3, f"error: the result could not be written: {error.strerror or error}", error)
    except MemoryError as error:
        line = "error: out of memory; keep fewer rows in it with --memory, or take a smaller network"
        return Ended(3, line, error)


def _flushed(code: int) -> Ended:
    """Whether what was printed has left us: a full disk shows here and not in Python's last breath."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return Ended(code)
