"""The command: what is refused before the page opens, ports, addresses, what is served."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import flask
import pytest
from explore_worlds import session_of

import trm_interp.explore.serving as serving
from trm_interp.explore.app import make_app
from trm_interp.explore.givens import board, givens
from trm_interp.explore.serving import free_port, make_server
from trm_interp.explore.session import Session
from trm_interp.explore.settings import ExploreConfig
from trm_interp.explore.web import GIVENS, PLOTLY, STANDS, bare_app, hold
from trm_interp.runtime.artifacts import artifact
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.opening import read_checkpoint
from trm_interp.tasks.registry import load_puzzles, task_named

Cli = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Servers that the command would have run."""
    servers: list[Any] = []
    monkeypatch.setattr(serving, "serve", servers.append)
    return servers


def test_it_says_where_it_is(cli: Cli, copier: Path, grids: Path, served: list[Any]):
    words = ["--ckpt", copier, "--puzzles", grids, "--steps", 1]
    answer = cli("explore", *words, "--port", 8763)
    assert (answer.code, answer.out) == (0, "") and len(served) == 1
    assert re.fullmatch(
        r"the explorer is at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", answer.err
    )
    assert served[0].host == "127.0.0.1"


def test_a_busy_port(cli: Cli, copier: Path, grids: Path, served: list[Any]):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = ["--ckpt", copier, "--puzzles", grids, "--steps", 1, "--port", port]
        answer = cli("explore", *words)
        first, second = answer.err.splitlines()
        assert first.startswith(f"port {port} is busy: taking ")
        taken = int(first.rpartition(" ")[2])
        assert taken > port and f":{taken}/" in second and served[0].port == taken


def test_ctrl_c_is_the_way_to_end_it(
    cli: Cli, copier: Path, grids: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(server: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "serve", stopped)
    answer = cli("explore", "--ckpt", copier, "--puzzles", grids, "--steps", 1)
    assert answer.code == 0 and answer.err.endswith("\nthe explorer has ended\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt", "nowhere"], "nowhere"),
        (["--puzzles", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--host", "no such host"], "--host no such host: "),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: "),
        (["--host", " "], "--host must be an address of this machine"),
        (["--port", "0"], "--port must be at least 1"),
        (["--port", "65536"], "65535"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--sae", "nowhere"], "nowhere: no finished SAE here"),
        (["--features", "nowhere"], "give --sae as well"),
        (["--probes", "nowhere"], "nowhere: no summary.json here; `trm-interp probes` writes one"),
    ],
)
def test_what_is_refused(
    cli: Cli, copier: Path, grids: Path, served: list[Any], words: list[str], message: str
):
    base = ["--ckpt", copier, "--puzzles", grids, "--steps", 1]
    answer = cli("explore", *base, *words)
    assert answer.code == 2 and not served
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_puzzles_of_another_size(cli: Cli, copier: Path, served: list[Any], tmp_path: Path):
    puzzles = tmp_path / "six.txt"
    puzzles.write_text(".....5.1......1.26..35.1.6....5.2...\n")
    answer = cli("explore", "--ckpt", copier, "--puzzles", puzzles)
    assert answer.code == 2 and not served
    assert "6x6 Sudoku puzzles" in answer.err and "reads 16 cells" in answer.err


def test_without_dash(cli: Cli, copier: Path, grids: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    answer = cli("explore", "--ckpt", copier, "--puzzles", grids)
    assert answer.code == 2
    assert "the explorer needs Dash: pip install 'trm-interp[explore]'" in answer.err


def test_no_port_is_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "TRIED", 1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: {port} to {port} are busy"):
            free_port("127.0.0.1", port)


def test_givens_need_no_torch():
    code = "import sys; from trm_interp.explore.givens import givens; "
    code += "from trm_interp.explore.settings import ExploreConfig; "
    code += "print(len(givens(ExploreConfig())) > 0, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True False\n", done.stderr


def test_sessions_need_no_dash():
    code = "import sys, trm_interp.explore.session, trm_interp.explore.script; "
    code += "print({'dash', 'flask', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture(scope="module")
def app() -> Any:
    return make_app(session_of(), ExploreConfig())


def test_scripts_are_served_before_the_session_is_open():
    """The page begins with the givens, and its end, with the board of the run, waits for it."""
    app, is_open, asked = bare_app(ExploreConfig()), Event(), Event()
    hold(app, is_open)
    client = app.server.test_client()
    page = iter(client.get("/", buffered=False).response)
    assert next(page).endswith(b"<body>\n")
    app.server.config[GIVENS].set_result(givens(ExploreConfig()))
    begins = next(page)
    assert (
        begins.startswith(b'<div id="first-board" inert><div ')
        and begins.count(b' class="cell ') == 36
    )
    assert b"boards.js" in begins and b"explorer.first" not in begins
    assert client.get("/assets/boards.js").status_code == 200
    layouts: list[str] = []

    def ask() -> None:
        asked.set()
        layouts.append(app.server.test_client().get("/_dash-layout").text)

    thread = Thread(target=ask)
    thread.start()
    asked.wait()
    make_app(session_of(), ExploreConfig(), app)
    (ends,) = page
    assert ends.startswith(b"<script>window.explorer.first(") and ends.endswith(b"</html>")
    assert not layouts
    is_open.set()
    thread.join()
    assert '"moment"' in layouts[0]
    assert "runs.data" in client.get("/_dash-dependencies").text


@pytest.mark.parametrize("name", ["trm-sudoku6", "trm-maze10", "trm-arc-small"])
def test_the_givens_are_those_of_the_first_puzzle(name: str):
    config = ExploreConfig(ckpt=str(artifact(name)))
    task = read_checkpoint(config.ckpt).card["task"]
    puzzles = load_puzzles(artifact(task_named(task).test_file), limit=1)
    own = board(puzzles.task, puzzles.inputs[0])
    assert givens(config) == own
    shown = re.findall(r'class="cell ([^"]*)"[^>]*>([^<]*)<', own)
    assert [glyph for _, glyph in shown] == puzzles.task.glyphs(puzzles.inputs[0]).tolist()
    is_given = ["given" in signs.split() for signs, _ in shown]
    assert is_given == (~puzzles.task.asked(puzzles.inputs[0])).tolist()


@pytest.mark.parametrize("words", [{"ckpt": "nowhere"}, {"puzzles": Path("nowhere.txt")}])
def test_givens_that_cannot_be_told_are_left_to_the_session(words: dict[str, Any]):
    assert givens(ExploreConfig(**words)) == ""


def test_plotly_comes_after_the_first_board():
    """A browser that reads it draws nothing for a second and more."""
    app, is_asked = bare_app(ExploreConfig()), Event()

    @app.server.route("/boards")
    def boards() -> str:
        setattr(flask.g, STANDS, True)
        return ""

    came: list[str] = []

    def ask() -> None:
        is_asked.set()
        came.append(app.server.test_client().get(PLOTLY).mimetype)

    thread = Thread(target=ask)
    thread.start()
    is_asked.wait()
    client = app.server.test_client()
    client.get("/assets/boards.js")
    assert not came
    client.get("/boards")
    thread.join()
    assert "javascript" in came[0]


def test_names_in_the_first_board_are_no_markup():
    """Nor does a page whose address has a view begin with another one's board."""
    session = session_of()
    session.task.tokens = tuple(f"</script><b>{token}" for token in session.task.tokens)
    client = make_app(session, ExploreConfig(), None).server.test_client()
    told = client.get("/").text.split("explorer.first(...", 1)[1].split(")</script>", 1)[0]
    assert "<" not in told
    data, reading = json.loads(told)
    assert data["tokens"] == list(session.task.tokens) and reading == session.model.answer
    assert "explorer.first(" not in client.get("/?puzzle=1&m=3").text


def test_a_first_board_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch):
    """The page comes without; its callbacks say why."""

    def run(self: Any, node: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Session, "run", run)
    text = make_app(session_of(), ExploreConfig()).server.test_client().get("/").text
    assert "explorer.first(" not in text and text.rstrip().endswith("</html>")


class Busy(dict[str, Any]):
    """Callbacks while some are being added."""

    def values(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def test_a_first_request_while_the_page_is_made():
    app = bare_app(ExploreConfig())
    hold(app, Event())
    app.callback_map = Busy()
    assert app.server.test_client().get("/").status_code == 200


class Port:
    """A server that notes whether it was asked for requests after its port was closed."""

    def __init__(self) -> None:
        self.is_closed, self.asked = False, Event()
        self.late: list[int] = []

    def handle_request(self) -> None:
        if self.is_closed:
            self.late.append(1)
        self.asked.set()
        time.sleep(0.001)

    def server_close(self) -> None:
        self.is_closed = True
        time.sleep(0.05)


def test_an_error_while_the_checkpoint_is_opened(monkeypatch: pytest.MonkeyPatch):
    """The thread that answers ends before its port is closed."""
    port = Port()
    monkeypatch.setattr(serving, "_bound", lambda app, config, number: port)
    with pytest.raises(UserError, match="nowhere"), serving._door(ExploreConfig(), 1):
        assert port.asked.wait(5)
        raise UserError("nowhere")
    assert port.is_closed and not port.late


def test_nothing_comes_from_another_host(app: Any):
    client = app.server.test_client()
    page = client.get("/").text
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//[^\"']*", page)
    sources = re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"([^\"]+)\"", page)
    assert len(sources) > 3 and any("assets/boards.js" in source for source in sources)
    for source in sources:
        assert client.get(source).status_code == 200, source


def test_the_layout_is_one_for_every_visit(app: Any):
    client = app.server.test_client()
    layout = client.get("/_dash-layout")
    assert layout.status_code == 200
    text = json.dumps(layout.json)
    assert '"moment"' in text and "onerror" not in text


def test_other_names_of_the_machine_are_refused():
    """A page of another site could otherwise reach it by a name that it lets point here."""
    server = make_server(session_of(), ExploreConfig(), free_port("127.0.0.1", 8790))
    try:
        client = server.app.test_client()
        assert client.get("/", headers={"Host": "127.0.0.1:8790"}).status_code == 200
        assert client.get("/", headers={"Host": "localhost:8790"}).status_code == 200
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    finally:
        server.server_close()
