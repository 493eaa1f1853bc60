"""Hooks of the site's build: pages that are generated, and the output of the code in the others."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from building import generated
from building.blocks import PAGES, Output, blocks, saved, with_outputs

FETCHED_WORKER, WORKER = "https://unpkg.com/iframe-worker/shim", "assets/worker.js"
RAN_SMALL = """
!!! note ""
    The commands of this page ran at small size when it was built (a dozen puzzles, short
    trainings), so what Python shows below them is smaller and worse than what you will get.
"""
_outputs: dict[str, list[Output]] = {}


def on_config(config: Any) -> Any:
    """Leave pages out of the navigation that are not there; read what the code put out."""
    config.nav = _present(config.nav)
    _outputs.clear()
    if kept := config.extra.get("outputs"):
        _outputs.update(saved(kept))
    return config


def _present(entry: Any) -> Any:
    if isinstance(entry, list):
        return [kept for one in entry if (kept := _present(one))]
    if isinstance(entry, dict):
        kept = {title: _present(of) for title, of in entry.items()}
        return {title: of for title, of in kept.items() if of}
    return entry if entry in generated.PAGES or (PAGES / entry).exists() else None


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    for name, make in generated.PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in tables, and what the code of the page put out."""
    outputs = _outputs.get(page.file.src_uri)
    if not outputs:
        return generated.with_tables(markdown)
    small = "trm-interp " in "".join(b.code for b in blocks(markdown) if b.language == "bash")
    title, _, rest = with_outputs(markdown, outputs).partition("\n")
    return generated.with_tables(f"{title}\n{RAN_SMALL if small else ''}{rest}")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The search needs no network; pages with figures load plotly.js before them."""
    up = "../" * page.file.dest_uri.count("/")
    output = output.replace(FETCHED_WORKER, f"{up}{WORKER}")
    if "plotly-graph-div" not in output:
        return output
    return output.replace("</head>", f'<script src="{up}{generated.PLOTLY}"></script></head>', 1)


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The page of what is not found has no place of its own."""
    return output_content.replace(FETCHED_WORKER, f"/{WORKER}")


def on_post_build(config: Any) -> None:
    """All pages share one plotly.js, and one script that lets the search work from a folder."""
    from plotly.offline import get_plotlyjs

    (Path(config.site_dir) / WORKER).write_text(Path(__file__).with_name("worker.js").read_text())
    (Path(config.site_dir) / generated.PLOTLY).write_text(get_plotlyjs())
