"""The two runs that reports are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_runs


@pytest.fixture(scope="session")
def of_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run like the demo's, and its data."""
    return report_runs.digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def of_numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A regression, and its data."""
    return report_runs.numbers(tmp_path_factory.mktemp("numbers"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose pictures are empty, for tests of what is said around them: to draw takes a second."""
    monkeypatch.setattr("gpubp.report.pictures.draw", lambda material, name: None)
    monkeypatch.setattr("gpubp.report.sections.svg", lambda figure, name: "<svg><title>{title}</title></svg>")
