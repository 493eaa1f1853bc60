"""The site: built out of the pages and of what their code put out."""

import tempfile
from pathlib import Path

from building.blocks import PAGES, Workplace, pages, save


def build(site: Path, outputs: Path | None = None) -> None:
    """Build the pages into `site`, with the outputs of their code if they are given.

    Abort (of mkdocs) after a warning, RuntimeError where a command of a page fails, and what its
    Python raises.
    """
    from mkdocs.commands.build import build as build_pages
    from mkdocs.config import load_config

    config = load_config(str(PAGES / "building" / "mkdocs.yml"), strict=True, site_dir=str(site))
    config.extra["outputs"] = outputs
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build_pages(config)
    finally:
        config.plugins.on_shutdown()


def run_pages(outputs: Path) -> None:
    """Run the code of all pages in a temporary folder, and keep what it put out."""
    with tempfile.TemporaryDirectory() as folder:
        place, out = Workplace(Path(folder)), {}
        for page in pages():
            print(f"running the code of {page}", flush=True)
            out[page] = place.run(page)
    save(out, outputs)
