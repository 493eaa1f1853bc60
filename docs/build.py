"""Builds the documentation into a folder that opens without a server: `python docs/build.py`.

The code of every page runs first, in a few minutes; any warning is an error. While you write, keep
what the code put out: with `--outputs FILE` it is written to that file, or read from it if it is
there.
"""

import argparse
import os
import tempfile
from pathlib import Path

from building.blocks import ROOT
from building.site import build, run_pages

os.environ["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the documentation, with its code run.")
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="folder of the pages")
    parser.add_argument("--outputs", type=Path, help="where outputs of code are kept for next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = given.outputs or Path(folder) / "outputs.json"
        if not kept.exists():
            run_pages(kept)
        build(given.site, kept)
    print(f"wrote {given.site / 'index.html'}")
