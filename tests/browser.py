"""A page of ours in the Chromium of this machine: what it asks of a network, what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), "")
SIZES = {"desk": (1280, 900), "phone": (420, 800)}


class Seen:
    """A page, and what it did beyond showing itself.

    Attributes:
        page: playwright's.
        requests: what it asked for, the page itself left out.
        complaints: console messages and errors.
    """

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url, path.as_uri()))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.goto(path.as_uri())

    def _asked(self, url: str, own: str) -> None:
        if url.partition("#")[0] != own and not url.startswith("data:"):
            self.requests.append(url)

    @property
    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def refuse_noise(self) -> None:
        """Insist that nothing was asked for and nothing complained of."""
        assert self.requests == [] and self.complaints == []


class Browser:
    """Opens pages."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    @contextmanager
    def open(self, path: Path, size: str = "desk", *, scripts: bool = True, media: str = "screen") -> Iterator[Seen]:
        """A page in a window of that size; without scripts, or as it would be printed."""
        width, height = SIZES[size]
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=scripts, offline=True
        )
        try:
            page = context.new_page()
            page.emulate_media(media=media)
            yield Seen(page, path)
        finally:
            context.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, or a skip that says why there is none."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        # as root Chromium has no sandbox, and containers have little shared memory
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield Browser(browser)
        finally:
            browser.close()
