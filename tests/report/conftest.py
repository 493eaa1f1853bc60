"""Real results of the smallest size: every job of `figures`, in this process, on a tiny model."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from inline_machine import InlineMachine, in_this_process

from trm_interp.core.checkpoints.folder import save_checkpoint
from trm_interp.core.models.trm import TRM, TRMConfig
from trm_interp.figures.look import Look
from trm_interp.report.claims import CLAIMS, claims_table
from trm_interp.report.effects import VERDICTS
from trm_interp.report.evidence import Evidence
from trm_interp.report.plan import FIGURES, Plan
from trm_interp.report.recipes import Request
from trm_interp.report.sweep.engine import run_jobs
from trm_interp.runtime.work import quiet

Cli = Callable[..., Any]
Judge = Callable[..., dict[str, Any]]


@pytest.fixture(scope="package")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint that copies its input, and 10 puzzles: it solves the 5 that have no blanks."""
    folder = tmp_path_factory.mktemp("halves")
    config = TRMConfig(cells=16, vocab=6, d_model=16, multiple=8, h_cycles=2, l_cycles=1, prefix=0)
    generator = torch.Generator().manual_seed(3)
    model = TRM(config, generator)
    with torch.no_grad():
        model.q_head.weight.normal_(generator=generator)
        model.lm_head.weight.copy_(model.token_embedding)
        for weight in model.net.parameters():
            weight.mul_(0.4)
    save_checkpoint(folder / "copier", model, {"note": "for tests"})
    solutions = [
        "".join(order[int(digit) - 1] for digit in "1234341221434321")
        for order in islice(permutations("1234"), 10)
    ]
    rows = [f"{'....' + s[4:] if i % 2 else s},{s}" for i, s in enumerate(solutions)]
    file = folder / "halves.txt"
    file.write_text("\n".join(rows) + "\n")
    return folder / "copier", file


@pytest.fixture(scope="package")
def plan(cli: Cli, halves: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Everything that claims need is done."""
    ckpt, puzzles = halves
    out = tmp_path_factory.mktemp("plan") / "all"
    request = Request(str(ckpt), puzzles, out, device="cpu", look=Look(), scale=0.01)
    plan = Plan(request, FIGURES)
    out.mkdir()
    here = InlineMachine(in_this_process(cli))
    failed = run_jobs(plan.jobs, plan.identity, print, quiet, machine=here)
    assert not failed, failed
    return plan


@pytest.fixture(scope="package")
def evidence(plan: Plan) -> Evidence:
    return plan.evidence(plan.results())


@pytest.fixture
def judged(evidence: Evidence) -> Judge:
    """The row of a claim, with some results replaced."""

    def judge(name: str, **results: Any) -> dict[str, Any]:
        table = claims_table(replace(evidence, **results))
        assert set(table["verdict"]) <= set(VERDICTS) and len(table) == len(CLAIMS)
        return table.set_index("id").loc[name].to_dict()

    return judge
