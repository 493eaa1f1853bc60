"""The explorer in a notebook."""

from pathlib import Path
from threading import Thread
from typing import Any

from trm_interp.explore.serving import GET_DASH, free_port, has_dash, make_server
from trm_interp.explore.session import open_session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.settings import in_range

_servers: dict[int, Any] = {}  # of this process, by port; None for those that Dash keeps


def explore(
    ckpt: str | Path = "",
    puzzles: Path | str | None = None,
    *,
    sae: Path | str | None = None,
    features: Path | str | None = None,
    probes: Path | str | None = None,
    store: Path | str | None = None,
    steps: int = 16,
    limit: int | None = None,
    device: str = "auto",
    port: int = 8050,
    height: int = 900,
) -> str:
    """Show the explorer below the cell of a notebook; its address is returned.

    Options are those of `trm-interp explore`. Elsewhere than in a notebook the page is served in
    the background until the process ends. Called again for a port, it takes the place of what it
    served there. `height` in pixels. UserError for what the command refuses.
    """
    if not has_dash():
        raise UserError(GET_DASH)
    from dash._jupyter import jupyter_dash

    from trm_interp.explore.app import make_app

    pages = None if features is None else Path(features)
    config = _config(ckpt=str(ckpt), steps=steps, limit=limit, port=port, features=pages)
    own = {"sae": sae, "pages": pages, "probes": probes, "store": store}
    session = open_session(ckpt, puzzles, steps, device, limit, **own)
    session.run(session.plain(0))
    if port in _servers:
        _end(port)
    else:
        port = free_port(config.host, port)
    if jupyter_dash.active:
        app = make_app(session, config)
        app.run(
            jupyter_mode="inline", host=config.host, port=port, jupyter_height=height, debug=False
        )
        _servers[port] = None
    else:
        _servers[port] = server = make_server(session, config, port)
        Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{config.host}:{port}/"


def _config(**given: Any) -> ExploreConfig:
    in_range(ExploreConfig, given)
    try:
        return ExploreConfig(**given)
    except ValueError as error:
        raise UserError(str(error)) from None


def _end(port: int) -> None:
    """End what is served there; Dash ends its own."""
    if (server := _servers.pop(port)) is not None:
        server.shutdown()
        server.server_close()
