"""gpubp verify FILE, a data file, a checkpoint or a run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..errors import CheckpointError, DataError
from ._options import DATA, WORTH_A_RATE, emit, json_option, table
from ._progress import Counter


@click.command(name="verify", short_help="Read every byte of a file or a run and name what is damaged.")
@click.argument("file", type=DATA)
@json_option
def command(file: Path, as_json: bool) -> None:
    """Read every row of FILE and compare it with the checksums that `gpubp convert` wrote; of a checkpoint, or of all
    in a run folder, compare every byte with the digests in it.

    Leaves with 0 if FILE is sound and with 3 if it is damaged; damaged rows and matrices are named.
    """
    from ..data.verify import verify
    from ..soundness import holds_checkpoints

    if holds_checkpoints(file):
        _checkpoints(file, as_json)
        return

    began = time.monotonic()
    with Counter("bytes") as counter:
        result = verify(file, progress=counter)
    seconds = max(time.monotonic() - began, 1e-9)
    rate = f"{result['read']:,} bytes of rows"
    if result["read"] >= WORTH_A_RATE:
        rate += f", {result['read'] / seconds / 1e9:.2f} GB/s"
    lines: list[tuple[str, Any]] = [("file", f"{result['path']}, {result['bytes']:,} bytes"), ("read", rate)]
    lines += [("damaged", one) for one in result["troubles"]]
    lines += [("not checked", one) for one in result["unchecked"]]
    if result["checksums"]:
        blocks = sum(one["blocks"] for one in result["datasets"])
        if result["sound"]:
            lines.append(("sound", f"all {blocks:,} blocks have their checksums; {result['content']}"))
    elif result["sound"]:
        line = "it has no checksums: every row could be read, nothing says that none has changed"
        lines.append(("readable", line))
    emit(result, as_json, table(lines))
    if not result["sound"]:
        first, *rest = result["troubles"]
        more = f", and {len(rest)} more" if rest else ""
        raise DataError(
            f"{result['path']} is damaged: {first}{more}", wanted="a sound file", do="make or copy it again"
        )


def _checkpoints(path: Path, as_json: bool) -> None:
    """Of a run folder or a checkpoint.

    Raises:
        CheckpointError: not all are sound.
    """
    from ..soundness import verify_checkpoints

    result = verify_checkpoints(path)
    lines: list[tuple[str, Any]] = []
    for one in result["checkpoints"]:
        said = one["trouble"] or f"{one['name']}, all {one['bytes']:,} bytes are as they were written"
        lines.append(("damaged" if one["trouble"] else "sound", said))
    emit(result, as_json, table(lines))
    if troubles := [one["trouble"] for one in result["checkpoints"] if one["trouble"]]:
        more = f", and {len(troubles) - 1} more" if troubles[1:] else ""
        sound = any(one["trouble"] is None for one in result["checkpoints"])
        do = "the newest sound one is what every command takes" if sound else "copy it back from where you have another"
        raise CheckpointError(f"{troubles[0]}{more}", wanted="sound checkpoints", do=do)
