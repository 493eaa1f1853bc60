"""Losses in every convention, by hand, and the groups by solve step."""

import math

import numpy as np
import torch

from trm_interp.analysis.losses import (
    CONVENTIONS,
    by_solve_step,
    losses_in_all_conventions,
)
from trm_interp.analysis.outcomes import first_solved


def test_conventions_by_hand():
    # one puzzle, one cycle, two cells (a given and a blank), two tokens besides pad at index 0
    # logits (-9, 1, -1) with label 1 and (-9, 1, -1) with label 2:
    # stablemax s = 1/10, 2, 1/2, sum 2.6: -ln(2 / 2.6) and -ln(0.5 / 2.6)
    logits = torch.tensor([-9.0, 1.0, -1.0]).expand(1, 1, 2, 3)
    asked, labels = torch.tensor([[False, True]]), torch.tensor([[1, 2]])
    losses = losses_in_all_conventions(logits, asked, labels)
    assert list(losses) == CONVENTIONS
    given, blank = math.log(2.6 / 2), math.log(2.6 / 0.5)
    assert np.isclose(losses["stablemax, cells"], (given + blank) / 2)
    assert np.isclose(losses["stablemax, blanks"], blank)
    assert np.isclose(losses["stablemax, sum"], given + blank)
    total = math.exp(-9) + math.exp(1) + math.exp(-1)
    soft_given, soft_blank = math.log(total) - 1, math.log(total) + 1
    assert np.isclose(losses["softmax, cells"], (soft_given + soft_blank) / 2)
    assert np.isclose(losses["softmax, blanks"], soft_blank)
    assert np.isclose(losses["softmax, sum"], soft_given + soft_blank)


def test_groups_by_solve_step():
    solved = np.zeros((5, 8), bool)
    solved[0, 0:] = True
    solved[1, 2] = True  # lost again, but first solved at step 3
    solved[2, 3:] = True
    solved[3, 7] = True
    assert first_solved(solved).tolist() == [0, 2, 3, 7, -1]
    losses = np.arange(5.0)[:, None] + np.array([[0.0, 10.0]])
    table = by_solve_step(losses, first_solved(solved), seed=0)
    at = table[table["h_cycles_done"] == 2].set_index("group")
    assert at["n"].to_dict() == {"step 1": 1, "steps 3-4": 2, "steps 5-8": 1, "never": 1}
    assert at["mean"].to_dict() == {"step 1": 10, "steps 3-4": 11.5, "steps 5-8": 13, "never": 14}
