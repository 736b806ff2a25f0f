"""What tests of several folders share.

A real browser for tests of pages; what needs it is skipped where there is no Playwright or no Chromium. Playwright runs
once in a process, so there is one fixture for all.
"""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells let what they start in the background ignore Ctrl-C, and processes started by tests would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_file(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file. At the end nothing has been logged, and nothing but the files was asked for."""
    pages, said, asked, given = [], [], [], set()

    def opened(path: Path, address: str = "", **context: Any) -> Any:
        page = chromium.new_page(**context)
        pages.append(page)
        given.add(path.as_uri())
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri() + address)
        return page

    yield opened
    for page in pages:
        page.close()
    assert said == []
    assert {url.partition("#")[0] for url in asked} == given
