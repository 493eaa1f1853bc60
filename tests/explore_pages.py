"""The explorer's page in a real browser, headless, for tests."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

from trm_interp.explore.serving import free_port, make_server
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
WAIT = 40_000  # ms; the machine may be busy


class Page(NamedTuple):
    page: Any
    session: Session
    url: str
    problems: list[str]  # errors on the console, requests to other hosts
    asked: list[str]  # paths of requests

    def open(self, query: str = "") -> None:
        self.page.goto(self.url + query)
        self.page.wait_for_selector("#boards .cell", timeout=WAIT)
        curves = "#curves .js-plotly-plot .scatterlayer"
        self.page.wait_for_selector(curves, state="attached", timeout=WAIT)  # perhaps hidden
        self.page.wait_for_selector("#list .run", timeout=WAIT)

    def board(self, run: int = 0) -> list[str]:
        cells = self.page.query_selector_all(f"#boards .board:nth-child({run + 1}) .cell")
        return [cell.inner_text() for cell in cells]

    def glyphs(self, tokens: np.ndarray) -> list[str]:
        return self.session.task.glyphs(tokens).tolist()

    def go(self, moment: int) -> None:
        self.page.evaluate(f"dash_clientside.set_props('moment', {{value: {moment}}})")
        self.at(moment)

    def at(self, moment: int) -> None:
        from playwright.sync_api import TimeoutError as TooLate

        shown = f"document.getElementById('when').innerText.startsWith('{moment} of')"
        try:
            self.page.wait_for_function(shown, timeout=WAIT)
        except TooLate:
            pytest.fail(f"at {self.page.inner_text('#when')}, not at {moment}: {self.problems}")

    def runs(self, n: int) -> None:
        self.page.wait_for_function(
            f"document.querySelectorAll('#boards .board').length === {n}"
            f" && document.querySelectorAll('#list .run').length === {n}",
            timeout=WAIT,
        )


def served(session: Session, config: ExploreConfig) -> Any:
    """A server on a port that nobody takes between the look for one and the binding."""
    for first in range(8811, 8911, 10):
        with suppress(SystemExit):
            return make_server(session, config, free_port("127.0.0.1", first))
    raise AssertionError("no free port")


@contextmanager
def in_browser(session: Session, config: ExploreConfig) -> Iterator[Page]:
    """A page of a session while the block runs, and what was wrong on it."""
    from playwright.sync_api import sync_playwright

    server = served(session, config)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        size: Any = {"width": 1280, "height": 800}
        page = browser.new_context(viewport=size, accept_downloads=True).new_page()
        problems: list[str] = []
        asked: list[str] = []

        def request(of: Any) -> None:
            parts = urlsplit(of.url)
            asked.append(parts.path)
            if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
                problems.append(f"request to {of.url}")

        page.on("request", request)
        page.on("pageerror", lambda error: problems.append(f"error {error}"))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.set_default_timeout(WAIT)
        yield Page(page, session, f"http://127.0.0.1:{server.port}/", problems, asked)
        browser.close()
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()
