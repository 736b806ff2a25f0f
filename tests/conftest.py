"""Fixtures for tests of several folders.

Tests of pages use a real browser, and are skipped without Playwright or Chromium. Playwright runs once in a process, so
there is one fixture for all.
"""

import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# The same examples each time, on machines of any speed.
settings.register_profile("nmt", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("nmt")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells make background processes ignore Ctrl-C, which processes started by tests would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def few_pictures() -> Iterator[None]:
    """Draw one picture where there would be ten or three: they took half of the time of tests that train."""
    with pytest.MonkeyPatch.context() as patch:
        for module, constant in (("evaluation.report_writer", "NUM_HEATMAPS"), ("training.validation", "NUM_SAMPLES")):
            if f"nmt.{module}" in sys.modules:
                patch.setattr(f"nmt.{module}.{constant}", 1)
        yield


@pytest.fixture(autouse=True)
def with_bf16(request: pytest.FixtureRequest) -> None:
    """Skip tests of the mark `bf16` on a CPU without it."""
    if request.node.get_closest_marker("bf16") is not None:
        from nmt.runtime.device import cpu_has_bf16

        if not cpu_has_bf16():
            pytest.skip("this CPU has no bf16")


@pytest.fixture(autouse=True)
def without_plugins() -> Iterator[None]:
    """Leave no plugin of a test in the tables, over which other tests are parametrized."""
    yield
    if (plugins := sys.modules.get("nmt.plugins")) is not None:
        for table, entry in plugins.OWNERS:
            plugins._table(table).pop(entry, None)
        for key in plugins.LOADED:
            sys.modules.pop(plugins._module_name(key), None)
        plugins.OWNERS.clear()
        plugins.LOADED.clear()
        plugins.warn_once.cache_clear()


@pytest.fixture
def clock_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], list[float]]:
    """Return a function that gives a module a clock, in a list to be set. Others keep theirs: with a changed
    `time.monotonic` the event loop of a server in a thread would sleep for hours."""

    def make(module: ModuleType) -> list[float]:
        now = [100.0]
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        return now

    return make


@pytest.fixture(autouse=True)
def own_handlers_only() -> None:
    """Begin as a new process does: pytest gives a logger that does not propagate handlers, which would count as set."""
    logger = logging.getLogger("nmt")
    if not any(type(handler).__module__ == "nmt.runtime.logs" for handler in logger.handlers):
        logger.propagate = True


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_file(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a file; at the end, no message was logged and only these files were requested."""
    pages, messages, requests, opened_urls = [], [], [], set()

    def open_page(path: Path, address: str = "", **context: Any) -> Any:
        page = chromium.new_page(**context)
        pages.append(page)
        opened_urls.add(path.as_uri())
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri() + address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert messages == []
    assert {url.partition("#")[0] for url in requests} == opened_urls
