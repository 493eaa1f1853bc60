"""Hooks of the site's build: pages that are generated, and the output of the code in the others."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from building import generated
from building.blocks import PAGES, Output, saved, with_outputs

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
    return generated.with_tables(with_outputs(markdown, outputs) if outputs else markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Pages with figures load plotly.js before them."""
    if "plotly-graph-div" not in output:
        return output
    up = "../" * page.file.dest_uri.count("/")
    return output.replace("</head>", f'<script src="{up}{generated.PLOTLY}"></script></head>', 1)


def on_post_build(config: Any) -> None:
    """Figures of all pages share one plotly.js."""
    from plotly.offline import get_plotlyjs

    (Path(config.site_dir) / generated.PLOTLY).write_text(get_plotlyjs())
