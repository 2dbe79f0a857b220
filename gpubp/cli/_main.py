"""The group `gpubp`: finds commands, reads the configuration file, turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import GpubpError, UsageError


class Commands(click.Group):
    """The commands are the files of this folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f".{cmd_name}", __package__).command


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Defaults from a TOML file: one table per command, keys as the options are written."""
    if path is None:
        return
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path}: {error}; wanted a TOML file such as: [train] hidden = '256,128'") from None
    group = ctx.command
    assert isinstance(group, Commands)
    defaults: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        command = group.get_command(ctx, name)
        if command is None or not isinstance(table, dict):
            raise click.UsageError(
                f"{path}: '{name}' is no command; wanted a table of {', '.join(group.list_commands(ctx))}"
            )
        keys = {
            o.lstrip("-"): p.name
            for p in command.params
            if isinstance(p, click.Option)
            for o in p.opts
            if o[:2] == "--"
        }
        for key, value in table.items():
            if (option := keys.get(key.replace("_", "-"))) is None:
                raise click.UsageError(f"{path}: [{name}] has the key '{key}'; wanted one of {', '.join(sorted(keys))}")
            defaults.setdefault(name, {})[option] = value
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
    "75 stopped and to be resumed, 130 and 143 stopped by a signal.",
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


class _Stderr(logging.Handler):
    """Log lines on whatever stderr is now; warnings say that they are."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        click.echo(prefix + record.getMessage(), err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    if sys.platform == "win32":
        click.echo(
            "gpubp: error: Windows is not supported; run gpubp inside WSL (Windows Subsystem for Linux)", err=True
        )
        sys.exit(UsageError.exit_code)
    try:
        # scripts/dev says how it was called, so that hints can be typed as they stand
        program = os.environ.get("GPUBP_PROGRAM", "gpubp")
        code = cli.main(args=arguments, prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        click.echo(f"gpubp: error: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"see {error.ctx.command_path} --help", err=True)
        code = error.exit_code
    except GpubpError as error:
        click.echo(f"gpubp: error: {' '.join(str(error).split())}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("gpubp: interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # the reader of our stdout went away: nothing is left to say, and Python must not try at exit
        sys.stdout = None
        code = 141
    except MemoryError:
        click.echo(
            "gpubp: error: out of memory; give fewer rows a place in it with --memory, or use a smaller network",
            err=True,
        )
        code = 3
    sys.exit(code if isinstance(code, int) else 0)
