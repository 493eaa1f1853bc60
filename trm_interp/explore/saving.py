"""*Save as HTML*: one run as a page that needs no network and no other file."""

import numpy as np

from trm_interp.explore.runs import CONFLICT, GIVEN, WRONG, Run
from trm_interp.explore.session import Session
from trm_interp.figures.scrub import cell_kinds, scrub_figure
from trm_interp.figures.style import page


def saved_page(session: Session, run: Run) -> str:
    """Board, loss and path after every H-cycle under a slider, with plotly's library inside."""
    task, state = session.task, session.model.answer
    reading = run.readings[state]
    ends = [m.at for m in run.moments if m.tick is not None and m.tick.ends_cycle]
    flags = run.flags(state, task)[ends]
    tokens = reading.tokens[ends]
    right, given, broken = flags & WRONG == 0, flags & GIVEN > 0, flags & CONFLICT > 0
    kinds = np.stack([cell_kinds(*one) for one in zip(right, given, broken, strict=True)])
    figure = scrub_figure(
        task.glyphs(tokens),
        kinds,
        task.grid,
        task.rulings(),
        reading.loss[ends],
        reading.place[1:, :2],
        run.axes[state].explained,
        f"{session.checkpoint.path.name}, {run.node.name}: {task.text(run.inputs[0])}"[:120],
    )
    return page(figure)
