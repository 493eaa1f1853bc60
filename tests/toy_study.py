"""A study that the package does not have: how many of a puzzle's cells are right after each step.

A whole one in one file, to start from: `Config`, `Result`, `run`, `figures` and `lines`.
`tests/studies/test_every_study.py` registers its row and runs it as a command.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.figures.style import styled
from trm_interp.runtime.settings import positive, setting
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import OnCheckpoint
from trm_interp.studies.subject import open_subject
from trm_interp.subjects.evaluate import solve

NAMES = ("cells",)  # of its tables and figures


@dataclass(frozen=True, kw_only=True)
class CellsConfig(OnCheckpoint):
    """Right cells by supervision step."""

    steps: int = setting(4, "supervision steps", most=1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps")


Config = CellsConfig


@dataclass(frozen=True, kw_only=True)
class CellsResult(OnCheckpointResult):
    """`right`: share of the cells that are right after each step, mean over puzzles."""

    steps: int
    right: list[Estimate]


Result = CellsResult


def run(config: CellsConfig, tell: Tell, progress: Progress) -> CellsResult:
    """Solve all puzzles, and compare their cells with the solutions."""
    subject = open_subject(config, tell)
    with results_of("cells", config, NAMES, tell=tell, progress=progress) as results:
        read = solve(
            subject.model, subject.puzzles, config.steps, config.batch_size, progress=progress
        )
        right = (read.tokens.numpy() == subject.puzzles.labels[:, None]).mean(-1)
        mean, low, high = mean_with_bounds(right, config.seed)
        table = pd.DataFrame(
            {"step": np.arange(config.steps) + 1, "right": mean, "low": low, "high": high}
        )
        result = CellsResult(
            **subject.provenance,
            steps=config.steps,
            right=[
                Estimate(value=float(value), low=float(least), high=float(most))
                for value, least, most in zip(mean, low, high, strict=True)
            ],
        )
        results.write(figures(result, table), {})
        return results.finish(result)


def figures(result: CellsResult, table: pd.DataFrame) -> Figures:
    """The share over supervision steps."""
    figure = go.Figure(go.Scatter(x=table["step"], y=table["right"]))
    figure.update_xaxes(title="supervision step (from 1)")
    figure.update_yaxes(title="share of the cells that are right", range=[0, 1])
    return {"cells": (styled(figure, f"{result.model_name}, n = {result.n}"), table)}


def lines(result: CellsResult) -> list[str]:
    """The result in words."""
    return [
        f"{result.n} puzzles; cells right after {result.steps} steps: {result.right[-1].text()}"
    ]
