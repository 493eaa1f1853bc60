"""Pages about things with hostile names: whole, without a foreign element, no script run."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from trm_interp.figures.bands import curve
from trm_interp.figures.style import styled, write_html
from trm_interp.sae.dashboard import write_dashboard

NAMES = [
    "<!--<script>",
    "</script><script>document.title = 'run'</script>",
    "<a href=\"javascript:document.title='run'\">here</a>",
    "<img src=x onerror=\"document.title='run'\">",
    "<b>bold</b> & &lt;i&gt; %{x} \u2028 ' \"",
]
LOOK = """<script>
window.addEventListener("load", () => {
  if (document.getElementById("figure"))
    Plotly.Fx.hover("figure", [{ curveNumber: 1, pointNumber: 0 }]);
  setTimeout(() => parent.postMessage({
    page: location.pathname.split("/").pop(),
    title: document.title,
    texts: [...document.querySelectorAll("svg text, #title")].map(one => one.textContent),
    foreign: document.querySelectorAll("a:not(.modebar *), img, svg b").length,
    plots: document.querySelectorAll(".js-plotly-plot .main-svg").length,
    choose: (document.getElementById("page") || {}).textContent }, "*"), 500);
});
</script></body>"""
FRAMES = """<!doctype html><script>
const seen = [];
window.addEventListener("message", event => {
  seen.push(event.data);
  if (seen.length < %d) return;
  const done = document.createElement("pre"); done.id = "seen";
  done.textContent = JSON.stringify(seen); document.body.append(done);
});
</script><body>%s"""


def figure_of(name: str) -> go.Figure:
    """The name in the title, in a legend and in a hover label."""
    figure = go.Figure().set_subplots(1, 1)
    band = (np.array([1.0, 2]), np.array([0.0, 1]), np.array([2.0, 3]))
    curve(figure, np.array([0, 1]), band, "#123456", name, True)
    return styled(figure, name)


def dashboard_of(name: str) -> dict[str, Any]:
    """What the page of an SAE of that name reads, of which no feature fires."""
    empty = ("rows", "ticks", "step_of", "steps", "scale", "cells", "tops", "puzzles", "facts")
    data: dict[str, Any] = {key: [] for key in empty}
    data |= {"title": name, "about": name, "fact_names": [name], "push": None, "level": ""}
    data |= {"board": "", "examples": 0, "side": 4, "box": [2, 2], "n": {"solved": 0, "failed": 0}}
    columns = [{"key": "feature", "label": name, "help": name, "digits": 0}]
    columns.append({"key": "mean", "label": name, "help": name, "digits": 3})
    rows = {"feature": [], "mean": [], "fact": []}
    return data | {"columns": columns, "details": columns, "rows": rows}


def test_hostile_names_are_shown_as_they_are(tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    wanted: dict[str, str] = {}
    for i, name in enumerate(NAMES):
        write_html(figure_of(name), tmp_path / f"figure{i}.html")
        write_dashboard(tmp_path / f"dashboard{i}.html", dashboard_of(name))
        wanted |= {f"figure{i}.html": name, f"dashboard{i}.html": name}
    for page in wanted:
        text = (tmp_path / page).read_text()
        assert text.count("</body>") == 1, page
        (tmp_path / page).write_text(text.replace("</body>", LOOK))
    frames = "".join(f'<iframe src="{page}" width=900 height=700></iframe>' for page in wanted)
    (tmp_path / "all.html").write_text(FRAMES % (len(wanted), frames))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [chromium, *flags, "--dump-dom", (tmp_path / "all.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert match, done.stderr[-2000:]
    seen = {one["page"]: one for one in json.loads(html.unescape(match[1]))}
    assert seen.keys() == wanted.keys()
    for page, name in wanted.items():
        one, shown = seen[page], [text.replace("\xa0", " ") for text in seen[page]["texts"]]
        assert one["foreign"] == 0, page
        if page.startswith("dashboard"):
            assert one["title"] == name and shown == [name]
            assert one["choose"].startswith("Choose a feature")
        else:
            assert one["title"] == "" and one["plots"] > 0
            assert shown.count(name) == 2, (page, shown)  # title and legend
            assert any(text.startswith(f"{name}evaluation 0: 1") for text in shown), (page, shown)
