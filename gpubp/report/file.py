"""Where a page is written."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from ..results import put, refuse_no_folder

_NAME = "report.html"
_OURS = b": gpubp report</title>"


def destination(run: Path, out: Path | None) -> Path:
    """The file that was asked for, or report.html in the run's folder, or beside a checkpoint."""
    if out is not None:
        return out
    return (run if run.is_dir() else run.parent) / _NAME


def check(path: Path, *, overwrite: bool) -> None:
    """Whether a page can be written there, to be asked before the work begins; an earlier report is replaced.

    Raises:
        UsageError: another kind of file, or one that no report wrote is there.
        DataError: no such folder.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a report named {path.name}", wanted="a name that ends in .html")
    refuse_no_folder(path)
    if path.is_dir() or (path.exists() and not overwrite and not _is_report(path)):
        do = "name another with --out" if path.is_dir() else "add --overwrite to replace it"
        raise UsageError(f"{path} exists and is no gpubp report", wanted="a free name", do=do)


def write(path: Path, page: str) -> int:
    """Write the page, whole or not at all; its bytes.

    Raises:
        DataError: it cannot be written.
    """
    content = page.encode()
    put(path, content)
    return len(content)


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _OURS in file.read(4096)
    except OSError:
        return False
