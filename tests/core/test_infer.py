from typing import Any

import pytest
import torch

from trm_interp.core.infer import Readouts, iter_run, run, run_batch
from trm_interp.core.models.base import Readout
from trm_interp.core.models.trm import TRM, State
from trm_interp.core.models.trm_config import TRMConfig


def test_shapes_and_dtypes(tiny_trm: TRM, puzzles: Any):
    read = run(tiny_trm, *puzzles, steps=3)
    assert len(read) == 5
    assert read.tokens.shape == (5, 3, 16) and read.tokens.dtype == torch.uint8
    assert read.q_halt.shape == read.loss.shape == (5, 3)
    assert read.q_halt.dtype == read.loss.dtype == torch.float32
    assert read.solved.shape == (5, 3) and read.solved.dtype == torch.bool
    assert read.logits is None
    fine = run(tiny_trm, *puzzles, steps=3, every="h_cycle", keep_logits=True)
    assert fine.logits is not None and fine.logits.shape == (5, 3, 2, 16, 6)
    assert fine.tokens.shape == (5, 3, 2, 16) and fine.halt_step.shape == (5,)


def test_read_outs_by_hand(tiny_trm: TRM, puzzles: Any):
    """One step at a time, stablemax written out: s / sum s at the label, minus its logarithm."""
    inputs, labels = puzzles
    read = run(tiny_trm, inputs, labels, steps=2, keep_logits=True)
    x = tiny_trm.embed(inputs)
    state = tiny_trm.initial_state(x)
    assert read.logits is not None
    for step in range(2):
        state, _ = tiny_trm.advance(state, x)
        logits, q_halt, *_ = tiny_trm.readout(state.z_H)
        assert torch.equal(read.logits[:, step], logits)
        assert torch.equal(read.q_halt[:, step], q_halt)
        s = logits.double()
        s = torch.where(s < 0, 1 / (1 - s), s + 1)
        p = (s / s.sum(-1, keepdim=True)).gather(-1, labels[..., None])[..., 0]
        torch.testing.assert_close(read.loss[:, step], -p.log().mean(-1).float())
        assert torch.equal(read.tokens[:, step].long(), logits.argmax(-1))
    assert torch.equal(read.solved, (read.tokens == labels[:, None]).all(-1))


def test_solved_needs_every_cell(tiny_trm: TRM, puzzles: Any):
    tokens = run(tiny_trm, *puzzles, steps=1).tokens[:, 0].long()
    labels = tokens.clone()
    labels[labels == 0] = 1
    labels[1, 3] = labels[1, 3] % 5 + 1  # one cell off
    expected = (tokens == labels).all(-1)
    assert torch.equal(run(tiny_trm, puzzles[0], labels, steps=1).solved[:, 0], expected)
    assert not expected[1]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batches_do_not_matter(tiny_trm: TRM, puzzles: Any, batch_size: int):
    whole = run(tiny_trm, *puzzles, steps=3, batch_size=5, keep_logits=True)
    parts = run(tiny_trm, *puzzles, steps=3, batch_size=batch_size, keep_logits=True)
    torch.testing.assert_close(whole.logits, parts.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.loss, parts.loss, atol=1e-4, rtol=0)
    sizes = [len(r) for r in iter_run(tiny_trm, *puzzles, steps=1, batch_size=batch_size)]
    assert sum(sizes) == 5 and max(sizes) <= batch_size


def test_the_last_h_cycle_of_a_step_is_the_step(tiny_trm: TRM, puzzles: Any):
    steps = run(tiny_trm, *puzzles, steps=3)
    cycles = run(tiny_trm, *puzzles, steps=3, every="h_cycle")
    for name in ("tokens", "q_halt", "solved", "loss"):
        assert torch.equal(getattr(cycles, name)[:, :, -1], getattr(steps, name)), name
    assert torch.equal(cycles.halt_step, steps.halt_step)
    assert not torch.equal(cycles.loss[:, :, 0], steps.loss)


def halting(q_halt: Any) -> list[int]:
    q, none = torch.tensor(q_halt), torch.zeros(0)
    halts = TRM(TRMConfig(cells=4, vocab=4, d_model=8)).halts(Readout(none, q))
    return Readouts(none, q, none, none, halts).halt_step.tolist()


def test_halt_step_by_hand():
    q_halt = [[-1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 1e-9], [1.0, -1.0, -1.0]]
    assert halting(q_halt) == [1, -1, 2, 0]
    # within a step only its last H-cycle counts: [[step 0: -, -], [step 1: +, -], [step 2: -, +]]
    assert halting([[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]]) == [2]


def test_tokens_of_uint8_and_a_training_model_read_the_same(tiny_trm: TRM, puzzles: Any):
    read = run(tiny_trm, *puzzles, steps=2)
    small = run(tiny_trm.train(), *(p.to(torch.uint8) for p in puzzles), steps=2)
    assert torch.equal(read.loss, small.loss) and not small.loss.requires_grad


def test_bad_input_is_refused(tiny_trm: TRM, puzzles: Any):
    inputs, labels = puzzles
    with pytest.raises(ValueError, match="the model reads 16 cells, the puzzles have 15"):
        run(tiny_trm, inputs[:, :15], labels[:, :15])
    with pytest.raises(ValueError, match="must be alike"):
        run(tiny_trm, inputs, labels[:4])
    with pytest.raises(ValueError, match="hold a puzzle"):
        run(tiny_trm, inputs[:0], labels[:0])
    with pytest.raises(ValueError, match="at least 1, got 0, 64"):
        run(tiny_trm, inputs, labels, steps=0)


def test_a_run_can_start_anywhere_and_be_changed_between_steps(tiny_trm: TRM, puzzles: Any):
    inputs, labels = puzzles
    whole = run_batch(tiny_trm, inputs, labels, steps=3)
    x = tiny_trm.embed(inputs)
    with torch.no_grad():
        after_one, _ = tiny_trm.advance(tiny_trm.initial_state(x), x)
    rest = run_batch(tiny_trm, inputs, labels, steps=2, start=after_one)
    torch.testing.assert_close(rest.q_halt, whole.q_halt[:, 1:])

    def reset(step: int, state: State) -> State:  # every step is the first one
        return tiny_trm.initial_state(x)

    again = run_batch(tiny_trm, inputs, labels, steps=3, before_step=reset)
    torch.testing.assert_close(again.loss, whole.loss[:, :1].expand(-1, 3))
