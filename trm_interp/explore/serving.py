"""Serve the explorer until it is stopped."""

import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Event, Thread
from time import sleep
from typing import TYPE_CHECKING, Any

from trm_interp.explore.settings import LAST_PORT, ExploreConfig
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import shown
from trm_interp.runtime.preloading import preload_torch
from trm_interp.runtime.progress import waiting

if TYPE_CHECKING:
    from trm_interp.explore.session import Session

AHEAD = 0.05  # s in which a browser gets and draws the first board, before the layout keeps it busy
TRIED = 50  # ports, from the one that was asked for
GET_DASH = "the explorer needs Dash: pip install 'trm-interp[explore]', and run again"


def run(
    config: ExploreConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """What the command `explore` does: open everything, then serve until Ctrl-C.

    A browser that asks meanwhile gets the scripts of the page, and the page when all is open.
    """
    if not has_dash():
        raise UserError(GET_DASH)
    port = free_port(config.host, config.port)
    if port != config.port:
        tell(f"port {config.port} is busy: taking {port}")
    preload_torch()
    with _no_collecting(), _door(config, port) as (server, app, is_open):
        from trm_interp.explore.givens import givens
        from trm_interp.explore.web import GIVENS

        app.server.config[GIVENS].set_result(givens(config))
        with waiting("loading libraries"):
            from trm_interp.explore.app import make_app  # brings torch
            from trm_interp.explore.session import open_session

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
            config.probes,
            config.store,
        )
        with waiting("running the first puzzle"):
            session.run(session.plain(0))  # the first board; and what cannot run fails here
            make_app(session, config, app)
        sleep(AHEAD)
        is_open.set()
    tell(f"the explorer is at http://{_in_address(config.host)}:{port}/ (Ctrl-C ends it)")
    try:
        serve(server)
    except KeyboardInterrupt:
        tell("the explorer has ended")
    finally:
        server.server_close()


@contextmanager
def _door(config: ExploreConfig, port: int) -> Iterator[tuple[Any, Any, Event]]:
    """A server that answers in a thread until the end of the block, its app, and what lets through
    questions about a session; closed after an error.
    """
    from trm_interp.explore.web import bare_app, hold

    app, is_open, is_done = bare_app(config), Event(), Event()
    hold(app, is_open)
    server = _bound(app, config, port)
    server.timeout = 0.05  # s without a request, after which to look whether all is open

    def answer() -> None:
        while not is_done.is_set():
            server.handle_request()

    thread = Thread(target=answer, daemon=True)

    def stop() -> None:
        is_done.set()
        thread.join()

    thread.start()
    try:
        yield server, app, is_open
    except BaseException:
        stop()  # first: to wait for requests at a closed port is an error of the thread
        server.server_close()
        raise
    stop()


@contextmanager
def _no_collecting() -> Iterator[None]:
    """What is imported stays: collecting garbage meanwhile takes time only, half a second of it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def has_dash() -> bool:
    """Whether what the page is made of is installed."""
    return find_spec("dash") is not None and find_spec("dash_mantine_components") is not None


def serve(server: Any) -> None:
    """Answer requests until Ctrl-C."""
    server.serve_forever()


def lines(result: None) -> list[str]:
    """Nothing is printed at the end."""
    return []


def make_server(session: "Session", config: ExploreConfig, port: int) -> Any:
    """A server of the page, bound to its port; `serve_forever` answers requests, in threads."""
    from trm_interp.explore.app import make_app

    return _bound(make_app(session, config), config, port)


def _bound(app: Any, config: ExploreConfig, port: int) -> Any:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *args: Any, **more: Any) -> None:
            """Requests are not logged."""

    return make_server(config.host, port, app.server, threaded=True, request_handler=Quiet)


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
