"""The panel of the neighbourhood: its form, its progress, and where the runs end."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, ctx, dcc, html, no_update

from trm_interp.explore import figures
from trm_interp.explore.around import MOST_SIDE, MOST_STARTS, Around, Job, Jobs, check_around
from trm_interp.explore.changes import chosen_node, filled, whole
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError, one_line

EVERY = 700  # ms between questions
FIELDS = {  # id: (label, value, most)
    "radius": ("radius (RMS)", 0.5, 100),
    "starts": ("random starts", 16, MOST_STARTS),
    "image-side": ("image side", 13, MOST_SIDE),
    "around-seed": ("seed", 1, None),
}
EMPTY = (
    "Where do runs end that go on from states near this one? The states that are chosen on the "
    "left are moved, at the moment of the slider."
)


def around_panel(graph: Any) -> Any:
    """What stands in the panel. `graph`: settings of its figure."""
    fields = [
        dmc.NumberInput(id=name, value=value, min=0, max=most, size="xs", label=label, step=1, w=92)
        for name, (label, value, most) in FIELDS.items()
    ]
    return html.Div(
        [
            html.Div(fields, className="row"),
            html.Div(
                [
                    dmc.Button("Compute around this moment", id="around-start", size="xs"),
                    dmc.Button("Stop", id="around-stop", size="xs", variant="default"),
                    html.Span(EMPTY, id="around-words", role="status", className="empty"),
                ],
                className="row",
            ),
            html.Progress(id="around-progress", value="0", max="100", hidden=True),
            html.Div(
                dcc.Graph(id="around", config=graph, className="around"),
                id="around-figure",
                hidden=True,
            ),
            dcc.Store(id="around-done", data=-1),
            dcc.Interval(id="around-poll", interval=EVERY, disabled=True),
        ],
        className="around-panel",
    )


def add_around(app: dash.Dash, session: Session) -> Jobs:
    """Callbacks of the panel; the computations that it starts."""
    jobs = Jobs(session)
    _begun(app, session, jobs)
    _looked_at(app, session, jobs)
    return jobs


def _begun(app: dash.Dash, session: Session, jobs: Jobs) -> None:
    """Begin and stop."""

    @app.callback(
        Output("around-poll", "disabled"),
        Output("around-words", "children"),
        Output("around-done", "data"),
        Input("around-start", "n_clicks"),
        Input("around-stop", "n_clicks"),
        State("page", "data"),
        State("states", "value"),
        *(State(name, "value") for name in FIELDS),
        State("tree", "data"),
        State("active", "data"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def begin(start: Any, stop: Any, page: str, states: Any, *given: Any) -> tuple[Any, ...]:
        if ctx.triggered_id == "around-stop":
            jobs.stop(page)
            return no_update, no_update, no_update
        radius, starts, side, seed, data, active, moment = given
        try:
            numbers = [whole(of) for of in (starts, side, seed)]
            names = tuple(name for name in session.model.state_names if name in (states or ()))
            node = chosen_node(session, data, active)
            asked = Around(node, moment, names, float(filled(radius)), *numbers)
            check_around(session, asked)
            jobs.start(page, asked)
        except UserError as error:
            return no_update, one_line(error), no_update
        return False, "computing …", -1


def _looked_at(app: dash.Dash, session: Session, jobs: Jobs) -> None:
    """What there is so far; the questions keep a computation going."""

    @app.callback(
        Output("around", "figure"),
        Output("around-figure", "hidden"),
        Output("around-words", "children", allow_duplicate=True),
        Output("around-progress", "value"),
        Output("around-progress", "hidden"),
        Output("around-done", "data", allow_duplicate=True),
        Output("around-poll", "disabled", allow_duplicate=True),
        Input("around-poll", "n_intervals"),
        Input("dark", "checked"),
        State("page", "data"),
        State("around-done", "data"),
        prevent_initial_call=True,
    )
    def look(n: Any, dark: bool, page: str, before: int) -> tuple[Any, ...]:
        job = jobs.of(page)
        if job is None:
            return (no_update,) * 7
        running = job.is_running  # before the ends are looked at, so that none comes after
        ends = job.ends()
        if ends is None:
            shown, hidden, done = no_update, True, 0
        else:
            shown, hidden, done = no_update, False, len(ends.solved)
            if done != before or ctx.triggered_id == "dark":
                run = session.run(job.asked.node)
                shown = figures.around(run, job.asked, ends, bool(dark), session.task)
        share = str(round(100 * done / job.total))
        # one that was begun meanwhile goes on being asked for
        ended = not running and jobs.of(page) is job
        return shown, hidden, words_of(job, running), share, ended, done, ended


def words_of(job: Job, running: bool) -> str:
    """How far a computation is and what came out, in words."""
    ends, asked = job.ends(), job.asked
    if job.problem:
        return job.problem
    done = 0 if ends is None else len(ends.solved)
    state = "computing" if running else ("done" if done == job.total else "stopped")
    text = f"{state}: {done} of {job.total} runs"
    if ends is None:
        return text
    n = min(done, asked.starts)
    solved, answers = int(ends.solved[:n].sum()), len(set(ends.group[:n].tolist()))
    kinds = "1 answer" if answers == 1 else f"{answers} answers"
    return f"{text}; of {n} random starts {solved} solved, {kinds}"
