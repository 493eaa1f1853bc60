"""The explorer in a notebook, and called from Python elsewhere: the server answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from dash._jupyter import jupyter_dash

import trm_interp
from trm_interp.explore import notebook
from trm_interp.runtime.errors import UserError

PORT = 8931


@pytest.fixture
def ended() -> Iterator[None]:
    """What was served is ended."""
    yield
    for port in list(notebook._servers):
        if (server := notebook._servers[port]) is not None:
            notebook._end(port)
    notebook._servers.clear()
    for server in jupyter_dash._servers.values():
        server.shutdown()
        server.server_close()
    jupyter_dash._servers.clear()


def page_at(address: str) -> str:
    with urlopen(address, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("inside", [True, False], ids=["in a notebook", "elsewhere"])
def test_a_call_shows_the_page(
    copier: Path,
    grids: Path,
    inside: bool,
    ended: None,
    monkeypatch: pytest.MonkeyPatch,
):
    shown: list[Any] = []
    monkeypatch.setattr(jupyter_dash, "in_ipython", inside)
    monkeypatch.setattr("dash._jupyter.display", shown.append)
    call: Any = trm_interp.explore
    address = call(str(copier), grids, steps=1, port=PORT, height=700)
    assert address.startswith("http://127.0.0.1:")
    assert "trm-interp explore" in page_at(address)
    again = call(str(copier), grids, steps=1, port=int(address.split(":")[-1].strip("/")))
    assert again == address and "trm-interp explore" in page_at(address)
    frames = [(frame.src, frame.height) for frame in shown]
    assert frames == ([(address, 700), (address, 900)] if inside else [])


def test_what_a_call_refuses(copier: Path, grids: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="nowhere"):
        notebook.explore(copier, grids, steps=1, sae="nowhere")
    for more, problem in (({"steps": 0}, "steps must be at least 1"), ({"port": 70_000}, "65535")):
        with pytest.raises(UserError, match=problem):
            notebook.explore(copier, grids, **more)
    monkeypatch.setattr(notebook, "has_dash", lambda: False)
    with pytest.raises(UserError, match="needs Dash"):
        notebook.explore(copier, grids)
