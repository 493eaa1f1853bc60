"""Serve the explorer until it is stopped."""

import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from trm_interp.explore.session import Session, open_session
from trm_interp.explore.settings import LAST_PORT, ExploreConfig
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import shown

TRIED = 50  # ports, from the one that was asked for
GET_DASH = "the explorer needs Dash: pip install 'trm-interp[explore]', and run again"


def run(
    config: ExploreConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """What the command `explore` does: open everything, then serve until Ctrl-C."""
    if not has_dash():
        raise UserError(GET_DASH)
    session = open_session(
        config.ckpt,
        config.puzzles,
        config.steps,
        config.device,
        config.limit,
        config.skip_bad,
        tell,
        config.sae,
        config.features,
    )
    session.run(session.plain(0))  # the first board, and what cannot run fails here
    port = free_port(config.host, config.port)
    if port != config.port:
        tell(f"port {config.port} is busy: taking {port}")
    server = make_server(session, config, port)
    tell(f"the explorer is at http://{_in_address(config.host)}:{port}/ (Ctrl-C ends it)")
    try:
        serve(server)
    except KeyboardInterrupt:
        tell("the explorer has ended")
    finally:
        server.server_close()


def has_dash() -> bool:
    """Whether what the page is made of is installed."""
    return find_spec("dash") is not None and find_spec("dash_mantine_components") is not None


def serve(server: Any) -> None:
    """Answer requests until Ctrl-C."""
    server.serve_forever()


def lines(result: None) -> list[str]:
    """Nothing is printed at the end."""
    return []


def make_server(session: Session, config: ExploreConfig, port: int) -> Any:
    """A server of the page, bound to its port; `serve_forever` answers requests, in threads."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *args: Any, **more: Any) -> None:
            """Requests are not logged."""

    app = guarded_app(session, config)
    return make_server(config.host, port, app.server, threaded=True, request_handler=Quiet)


def guarded_app(session: Session, config: ExploreConfig) -> Any:
    """The page, which answers to its own names of the machine only."""
    from trm_interp.explore.app import make_app

    app = make_app(session, config)
    if is_loopback(config.host):  # a page of another site must not reach it by a name of its own
        app.server.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]", config.host]
    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound there.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    return host in ("localhost", "::1") or host.startswith("127.")


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that nothing listens at. UserError where there is none."""
    last = min(first + TRIED, LAST_PORT + 1)
    for port in range(first, last):
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no such address"
            advice = "give an address of this machine"
            raise UserError(f"--host {shown(host)}: {reason}; {advice}") from None
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if isinstance(error, PermissionError) or "in use" in str(error):
                    continue
                raise UserError(f"--host {shown(host)}: {error.strerror}") from None
            return port
    raise UserError(f"--port: {first} to {last - 1} are busy; give another one")


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
