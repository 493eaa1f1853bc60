"""The panel of SAE features: what is active in the chosen cell, one feature's page, its forks."""

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update

from trm_interp.explore import figures
from trm_interp.explore.changes import PAGE, cells_of, chosen_node, filled, tree_outputs
from trm_interp.explore.edits import Feature
from trm_interp.explore.page_trees import PageTrees
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree, tree_of

ORDERS = {
    "activation": "by activation",
    "cells": "by what sets this cell apart now",
    "moments": "by what sets this moment apart",
}
MODES = {"ablate": "ablate", "clamp": "clamp to", "steer": "add"}
HEADINGS = ("feature", "activation", "over other cells", "over other moments")
NO_SAE = (
    "No SAE is open. Train one with `trm-interp train-sae`, and start the explorer with "
    "`--sae FOLDER`."
)
NO_CELL = "Click a cell to see which features are active there now."
NONE_ACTIVE = "No feature is active in this cell at this moment."


def feature_panel(session: Session, graph: Any) -> Any:
    """What stands in the panel; why it is empty where no SAE is open. `graph`: settings of its
    figure."""
    if session.features is None:
        return html.P(NO_SAE, className="empty")
    order_name: Any = {"aria-label": "order of features"}
    value_name: Any = {"aria-label": "activation"}
    orders = [{"value": name, "label": label} for name, label in ORDERS.items()]
    modes = [{"value": name, "label": label} for name, label in MODES.items()]
    times = [{"value": "once", "label": "now"}, {"value": "on", "label": "from here on"}]
    return html.Div(
        [
            html.Div(
                [
                    html.H2(f"Features of {session.features.site}"),
                    dmc.Select(
                        id="order",
                        data=orders,
                        value="activation",
                        size="xs",
                        allowDeselect=False,
                        **order_name,
                    ),
                ],
                className="row",
            ),
            html.Div(id="features", className="features"),
            html.Div(id="feature-page"),
            html.Div(
                dcc.Graph(id="feature-course", config=graph, style={"height": "150px"}),
                id="feature-course-figure",
                hidden=True,
            ),
            html.Div(
                [
                    dmc.SegmentedControl(id="feature-mode", data=modes, value="ablate", size="xs"),
                    dmc.NumberInput(
                        id="feature-value",
                        value=1,
                        step=0.5,
                        size="xs",
                        w=80,
                        **value_name,
                    ),
                    dmc.SegmentedControl(id="feature-time", data=times, value="on", size="xs"),
                    dmc.Button("Fork by this feature", id="feature-fork", size="xs"),
                ],
                id="feature-forks",
                className="row",
                hidden=True,
            ),
        ],
        className="feature-panel",
    )


def add_features(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """Callbacks of the panel; none where no SAE is open."""
    if session.features is None:
        return
    _active(app, session)
    _page(app, session)
    _forks(app, session, trees)


def _active(app: dash.Dash, session: Session) -> None:
    """The list, and a choice from it."""

    @app.callback(
        Output("features", "children"),
        Input("settled", "data"),
        Input("cell", "data"),
        Input("active", "data"),
        Input("tree", "data"),
        Input("order", "value"),
        Input("side", "value"),
        Input("feature", "data"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def list_features(
        settled: Any, cell: Any, active: Any, data: Any, order: Any, side: str, chosen: Any, at: int
    ) -> Any:
        features = session.features
        if side != "features" or not data or features is None:
            return no_update
        if cell is None:
            return html.P(NO_CELL, className="empty")
        run = session.run(chosen_node(session, data, active))
        rows = features.active(session, run, at, cell, order if order in ORDERS else "activation")
        if not rows:
            return html.P(NONE_ACTIVE, className="empty")
        head = html.Tr([html.Th(heading) for heading in HEADINGS])
        return html.Table([head, *(_row(one, one.feature == chosen) for one in rows)])

    @app.callback(
        Output("feature", "data", allow_duplicate=True),
        Output("layer", "value", allow_duplicate=True),
        Input({"type": "feature", "feature": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def choose(clicks: list[Any]) -> Any:
        trigger: Any = ctx.triggered_id
        if trigger is None or not any(one["value"] for one in ctx.triggered):
            return no_update, no_update
        return trigger["feature"], "feature"


def _row(one: Any, chosen: bool) -> Any:
    name: Any = {"aria-label": f"feature {one.feature}", "aria-pressed": str(chosen).lower()}
    button = html.Button(
        str(one.feature), id={"type": "feature", "feature": one.feature}, className="token", **name
    )
    numbers = (one.activation, f"{one.over_cells:+.3f}", f"{one.over_moments:+.3f}")
    cells = [html.Td(button), html.Td(f"{numbers[0]:.3f}"), *map(html.Td, numbers[1:])]
    return html.Tr(cells, className="chosen" if chosen else "")


def _page(app: dash.Dash, session: Session) -> None:
    """The page of the chosen feature, and its course."""

    @app.callback(
        Output("feature-page", "children"),
        Output("feature-course", "figure"),
        Output("feature-course-figure", "hidden"),
        Output("feature-forks", "hidden"),
        Input("feature", "data"),
        Input("active", "data"),
        Input("tree", "data"),
        Input("cell", "data"),
        Input("side", "value"),
        Input("dark", "checked"),
        State("moment", "value"),
        prevent_initial_call=True,
    )
    def show(
        feature: Any, active: Any, data: Any, cell: Any, side: str, dark: bool, moment: int
    ) -> tuple[Any, ...]:
        features = session.features
        if feature is None or not data or features is None:
            return "", no_update, True, True
        if side != "features":
            return (no_update,) * 4
        tree = tree_of(session, data)
        run = session.run(chosen_node(session, data, active))
        rows = features.page(session, run, feature)
        facts = [part for name, text in rows for part in (html.Dt(name), html.Dd(text))]
        heading: list[Any] = [html.H2(f"Feature {feature}")]
        if features.pages is not None:
            href = f"features/dashboard.html#feature={feature}"
            heading.append(html.A("its page in the dashboard", href=href, target="_blank"))
        page = [html.Div(heading, className="row"), html.Dl(facts)]
        runs = [session.run(node) for node in tree.nodes]
        courses = [features.course(session, run, feature) for run in runs]
        figure = figures.feature_course(runs, courses, cell, moment, bool(dark), session.task)
        return page, figure, False, False


def _forks(app: dash.Dash, session: Session, trees: PageTrees) -> None:
    """A fork by the chosen feature; in the chosen cells or in all, as the left column says."""

    @app.callback(
        *tree_outputs(allow_duplicate=True),
        Input("feature-fork", "n_clicks"),
        PAGE,
        State("feature", "data"),
        State("feature-mode", "value"),
        State("feature-value", "value"),
        State("feature-time", "value"),
        State("where", "value"),
        State("cell", "data"),
        State("more", "data"),
        State("tree", "data"),
        State("active", "data"),
        State("moment", "value"),
        prevent_initial_call=True,
        running=[(Output("feature-fork", "loading"), True, False)],
    )
    def fork(clicks: int, page: str, *given: Any) -> Any:
        feature, mode, value, time, *places, data, active, moment = given

        def make(last: dict[str, Any]) -> tuple[Tree, int]:
            tree, cells = tree_of(session, last), cells_of(*places)
            number = 0.0 if mode == "ablate" else float(filled(value))
            edit = Feature(moment, feature, mode, number, time == "on", cells)
            session.check(edit)
            return tree.with_fork(active, edit), len(tree.nodes)

        return trees.change(page, data, make, numbered=True)
