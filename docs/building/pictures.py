"""Pictures of the explorer for the documentation, at 1280 x 800: `docs/explorer/*.png`.

    trm-interp collect --out runs/states --limit 12
    trm-interp train-sae runs/states --site z_L --out runs/sae --arch topk --active 16 \\
        --expansion 8 --train-steps 400
    python docs/building/pictures.py runs/sae

The default checkpoint, and a small SAE of it. Needs Playwright and a Chromium (BROWSER_PATH names
another browser).
"""

import argparse
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from trm_interp.explore.serving import free_port, make_server
from trm_interp.explore.session import open_session
from trm_interp.explore.settings import ExploreConfig

OUT = Path(__file__).resolve().parents[1] / "explorer"
FORK = "fork=0,noise,21,z_H,3.0,1,*,noise+of+3"
VIEWS = {  # name: address, whether it is dark
    "board": ("?puzzle=3&m=7&cell=26&layer=entropy", False),
    "fork": (f"?puzzle=3&m=27&cell=8&layer=change&run=1&axes=seen&{FORK}", True),
    "feature": ("?puzzle=3&m=12&cell=8&side=features", False),
    "neighbourhood": ("?puzzle=2&m=20&side=around", False),
}
AROUND = {"radius": "2", "starts": "12", "image-side": "7"}
PATIENCE = 400_000  # ms
REST = 1500  # ms until figures have come to rest


def taken(page: Any, name: str, url: str) -> None:
    """One picture, of a page that is open at its address."""
    query, dark = VIEWS[name]
    page.goto(url + query)
    page.wait_for_selector("#boards .cell")
    page.wait_for_selector("#curves .js-plotly-plot .scatterlayer", state="attached")
    if dark:
        page.click("label[for=dark]")
    if name == "feature":
        page.click("#features button >> nth=0")
        page.wait_for_selector("#feature-course .scatterlayer .trace")
        page.click("#feature-fork")
        page.wait_for_selector("#boards .board:nth-child(2)")
        page.wait_for_selector("#heat-busy", state="hidden")
        page.wait_for_selector("#feature-course .scatterlayer .trace:nth-child(4)")
    if name == "neighbourhood":
        for field, value in AROUND.items():
            page.fill(f"#{field}", value)
        page.click("#around-start")
        words = "document.getElementById('around-words').innerText"
        page.wait_for_function(f"{words}.startsWith('done')")
    page.wait_for_timeout(REST)
    page.screenshot(path=str(OUT / f"{name}.png"))
    if dark:
        page.click("label[for=dark]")


def main() -> None:
    """All pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("sae", help="folder of an SAE of z_L of the default checkpoint")
    parser.add_argument("names", nargs="*", default=list(VIEWS), help=", ".join(VIEWS))
    asked = parser.parse_args()
    session = open_session(sae=asked.sae)
    server = make_server(session, ExploreConfig(), free_port("127.0.0.1", 8840))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = os.environ.get("BROWSER_PATH") or shutil.which("chromium")
    flags = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        for name in asked.names:
            taken(page, name, f"http://127.0.0.1:{server.port}/")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
