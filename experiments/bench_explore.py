"""Section of bench.py: how soon the live explorer answers, by wall clock and processor time.

In a headless browser that is open already; without Playwright or Chromium only the forks are
measured. `givens`: from the start of the command to the sight of the first puzzle's board, in a
browser that asks for the page from the start on; `answers`: until it is answered; `first_board`:
until the board of its run; `page`: until the boards that follow the slider. `slider`: from a move
to the board's drawing, 20 moves. Forks: of the default 6x6 checkpoint and of a random 9x9 model of
width 128, from the first moment on, with everything that is read from the run and what is sent of
it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.explore.edits import Noise
from trm_interp.explore.payload import payload
from trm_interp.explore.serving import free_port, make_server
from trm_interp.explore.session import Session, open_session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.tasks.registry import load_puzzles

PATIENCE = 300  # s
NINE = "artifacts/data/sudoku9/test.txt"
MOVE = """async (moment) => {
  const start = performance.now();
  dash_clientside.set_props("moment", { value: moment });
  const shown = () => document.getElementById("when").innerText.startsWith(`${moment} of`);
  while (!shown()) await new Promise((go) => requestAnimationFrame(go));
  return performance.now() - start;
}"""


def explore(repeats: int) -> dict[str, float]:
    """Seconds; medians."""
    session = open_session(tell=lambda line: None)
    forks = {"fork_6x6": session, "fork_9x9_width_128": _nine()}
    numbers: dict[str, float] = {"load_average": os.getloadavg()[0]}
    for name, one in forks.items():
        wall, core = zip(*(_fork(one, seed) for seed in range(repeats)), strict=True)
        numbers |= {f"{name}_s": median(wall), f"{name}_core_s": median(core)}
    with _browser() as page:
        if page is not None:
            starts = [_first_board(page) for _ in range(min(repeats, 3))]
            names = ("answers_s", "givens_s", "first_board_s", "page_s", "first_board_core_s")
            of_each = zip(names, zip(*starts, strict=True), strict=True)
            moves = _moves(session, page)
            numbers |= {name: median(each) for name, each in of_each}
            numbers |= {"slider_ms": median(moves), "slider_worst_ms": max(moves)}
    return numbers


def _nine() -> Session:
    """A random model of the size that the limit is for."""
    config = TRMConfig(d_model=128, cells=81, vocab=11)
    model = TRM(config, torch.Generator().manual_seed(0)).eval()
    puzzles = load_puzzles(Path(__file__).resolve().parents[1] / NINE, limit=2)
    return Session(Checkpoint(model, Path("random"), "ours", "0" * 64, {}), puzzles)


def _fork(session: Session, seed: int) -> tuple[float, float]:
    """Wall-clock and processor time of a fork, from its click to what is sent."""
    plain = session.plain(0)
    parent = session.run(plain)
    fork = plain.fork(Noise(1, (session.model.answer,), 1.0, seed))
    began, core = time.perf_counter(), time.process_time()
    json.dumps(payload(session, [parent, session.run(fork)]))
    return time.perf_counter() - began, time.process_time() - core


def _first_board(page: Any) -> tuple[float, ...]:
    """Seconds until the server answers, until the givens and the board of their run are seen and
    until the page is there, and the server's processor time."""
    port = free_port("127.0.0.1", 8870)
    began, spent = time.perf_counter(), _children()
    passed: list[float] = []
    command = [sys.executable, "-m", "trm_interp", "explore", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - began < PATIENCE:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
                passed.append(time.perf_counter() - began)
                for seen in (".board .cell.given", ".board .cell[aria-label]", "#boards .cell"):
                    page.wait_for_selector(seen)
                    passed.append(time.perf_counter() - began)
                break
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait()
    if not passed:
        raise RuntimeError(f"no page at port {port} after {PATIENCE} s")
    return *passed, _children() - spent


def _children() -> float:
    """Processor time of processes that have ended, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def _moves(session: Session, page: Any) -> list[float]:
    """Milliseconds of moves of the slider."""
    server: Any = make_server(session, ExploreConfig(), free_port("127.0.0.1", 8860))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.wait_for_selector("#path .js-plotly-plot .scatterlayer")
        return [page.evaluate(MOVE, moment) for moment in range(10, 330, 16)]
    finally:
        page.goto("about:blank")
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _browser() -> Iterator[Any]:
    """A page of a headless browser; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    if program is None or find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        browser.close()
