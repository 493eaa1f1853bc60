import math

import pytest
import torch

from trm_interp.core.losses import (
    is_solved,
    mean_over_cells,
    softmax_cross_entropy,
    stablemax_cross_entropy,
    stablemax_log_prob,
    step_losses,
)


def test_stablemax_by_hand():
    # s(2) = 3, s(0) = 1, s(-1) = 1 / 2, s(-3) = 1 / 4: together 19 / 4
    p = stablemax_log_prob(torch.tensor([2.0, 0.0, -1.0, -3.0])).exp()
    expected = torch.tensor([12.0, 4.0, 2.0, 1.0], dtype=torch.float64) / 19
    torch.testing.assert_close(p, expected)


def test_stablemax_cross_entropy_by_hand():
    # s(1) = 2, s(-1) = 1 / 2, s(0) = 1: p = 4/7, 1/7, 2/7; a label of 0 is pad and costs nothing
    logits = torch.tensor([[[1.0, -1.0, 0.0]] * 3])
    loss = stablemax_cross_entropy(logits, torch.tensor([[0, 1, 2]]))
    expected = torch.tensor([[0.0, math.log(7), math.log(7 / 2)]], dtype=torch.float64)
    torch.testing.assert_close(loss, expected)


def test_stablemax_is_a_distribution_far_out():
    """In float64: a probability of 1e-12 beside 1 is not lost, nor is its logarithm."""
    x = torch.tensor([1e6, -1e6], dtype=torch.float32)
    log_p = stablemax_log_prob(x)
    assert log_p.dtype == torch.float64
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-15)
    # p = (1 / (1e6 + 1)) / (1e6 + 1 + ...), close to (1e6 + 1)^-2
    assert log_p[1].item() == pytest.approx(-2 * math.log(1e6 + 1), rel=1e-12)


def test_stablemax_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 6, (2, 4), generator=generator)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stablemax_cross_entropy(x, labels), (logits,))


def test_stablemax_gradient_at_zero_and_far_out_is_that_of_the_logarithm():
    # s' (0) = 1 from both sides; d/dx -log(s_0 / (s_0 + s_1)) = -1 / s_0 + 1 / (s_0 + s_1)
    logits = torch.tensor([0.0, 0.0], requires_grad=True)
    stablemax_cross_entropy(logits, torch.tensor(1)).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([0.5, -0.5]))
    far = torch.tensor([-1e30, 1e30], requires_grad=True)
    stablemax_cross_entropy(far, torch.tensor(1)).backward()
    assert far.grad is not None and far.grad.isfinite().all()


def test_softmax_cross_entropy_by_hand():
    # logits log 4, log 3, log 1: p = 4/8, 3/8, 1/8
    logits = torch.tensor([[[4.0, 3.0, 1.0]] * 3]).log()
    loss = softmax_cross_entropy(logits, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(loss, torch.tensor([[0.0, math.log(8 / 3), math.log(8)]]))


def test_label_smoothing_mixes_in_the_uniform_distribution():
    # 0.7 -log p_label + 0.3 times the mean of -log p over the three tokens
    logits = torch.tensor([[[4.0, 3.0, 1.0]] * 2]).log()
    loss = softmax_cross_entropy(logits, torch.tensor([[1, 0]]), smoothing=0.3)
    uniform = (math.log(2) + math.log(8 / 3) + math.log(8)) / 3
    expected = [[0.7 * math.log(8 / 3) + 0.3 * uniform, 0.0]]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_mean_over_the_cells_that_have_a_label():
    per_cell = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    labels = torch.tensor([[3, 2, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(mean_over_cells(per_cell, labels), torch.tensor([1.5, 0.0]))


def test_solved_is_every_labelled_cell_right():
    labels = torch.tensor([[2, 3, 0], [2, 3, 0], [2, 3, 0]])
    tokens = torch.tensor([[2, 3, 5], [2, 3, 0], [2, 4, 0]])
    assert is_solved(tokens, labels).tolist() == [True, True, False]


def test_step_losses_by_hand():
    """Two puzzles of two cells, three tokens; the first solved, the second half right."""
    logits = torch.zeros(2, 2, 3)
    logits[0, :, 1] = 1.0  # s = 1, 2, 1: p(label) = 1/2
    logits[1, 0, 1] = 1.0
    logits[1, 1, 2] = 3.0  # s = 1, 1, 4: p(label 1) = 1/6
    q_halt = torch.tensor([0.5, 2.0])
    losses = step_losses(logits, q_halt, torch.ones(2, 2, dtype=torch.int64))
    assert losses.solved.tolist() == [True, False]
    answer = torch.tensor([math.log(2), (math.log(2) + math.log(6)) / 2], dtype=torch.float64)
    torch.testing.assert_close(losses.answer, answer)
    # -log sigmoid(0.5) = log(1 + e^-0.5); -log(1 - sigmoid(2)) = log(1 + e^2)
    halt = torch.tensor([math.log1p(math.exp(-0.5)), math.log1p(math.exp(2.0))])
    torch.testing.assert_close(losses.halt, halt)


def test_halting_gradient_is_sigmoid_minus_target():
    logits = torch.zeros(2, 1, 3)
    logits[:, 0, 1] = 1.0
    q_halt = torch.tensor([0.3, 0.3], requires_grad=True)
    losses = step_losses(logits, q_halt, torch.tensor([[1], [2]]))
    losses.halt.sum().backward()
    p = 1 / (1 + math.exp(-0.3))
    torch.testing.assert_close(q_halt.grad, torch.tensor([p - 1, p]))


def test_labels_of_uint8_read_the_same():
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0, 5, 2], [3, 3, 1, 4]])
    for kind in ("stablemax", "softmax"):
        plain = step_losses(logits, torch.zeros(2), labels, kind)
        small = step_losses(logits, torch.zeros(2), labels.to(torch.uint8), kind)
        for one, other in zip(plain[:3], small[:3], strict=True):
            assert torch.equal(one, other)
