"""Both gated pairings: which one runs shows in the gradients; one product gives the same loss."""

import pytest
import torch
from sae_lens import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from trm_interp.sae.gated import GatedSAE
from trm_interp.sae.settings import Variant

D, F, BATCH = 6, 20, 64


def filled(sae: GatedTrainingSAE) -> GatedTrainingSAE:
    """Nothing at zero, so that a term left out shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            if not name.startswith("W_"):
                weight.normal_(0.0, 0.3, generator=generator)
    return sae


def gated(variant: Variant, l1: float = 0.7) -> GatedSAE:
    torch.manual_seed(2)
    sae = GatedSAE(GatedTrainingSAEConfig(d_in=D, d_sae=F, l1_coefficient=l1), variant)
    filled(sae)
    return sae


def rows() -> Tensor:
    return torch.randn(BATCH, D, generator=torch.Generator().manual_seed(1))


def step_input(x: Tensor, l1: float = 0.7) -> TrainStepInput:
    return TrainStepInput(x, {"l1": l1}, None, 0, False)


def gradient(sae: GatedSAE, loss: str) -> dict[str, Tensor | None]:
    sae.zero_grad()
    sae.training_forward_pass(step_input(rows())).losses[loss].backward()
    return {name: weight.grad for name, weight in sae.named_parameters()}


def moves(grad: Tensor | None) -> bool:
    return grad is not None and bool((grad != 0).any())


def test_one_product_gives_sae_lens_loss_and_gradients():
    ours = gated("saelens")
    theirs = GatedTrainingSAE(GatedTrainingSAEConfig(d_in=D, d_sae=F, l1_coefficient=0.7))
    theirs.load_state_dict(ours.state_dict())
    x = rows()
    one, three = (sae.training_forward_pass(step_input(x)) for sae in (ours, theirs))
    for name, loss in three.losses.items():
        torch.testing.assert_close(one.losses[name], loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.feature_acts, three.feature_acts, rtol=1e-5, atol=1e-5)
    one.loss.backward()
    three.loss.backward()
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(
            ours.get_parameter(name).grad, weight.grad, rtol=1e-4, atol=1e-5, msg=name
        )


def test_the_encoder_is_multiplied_once(monkeypatch: pytest.MonkeyPatch):
    sae, products = gated("saelens"), []
    plain = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: (products.append((tuple(a.shape), tuple(b.shape))), plain(a, b))[1],
    )
    sae.training_forward_pass(step_input(rows()))
    assert [p for p in products if p == ((BATCH, D), (D, F))] == [((BATCH, D), (D, F))]


def test_the_auxiliary_term_trains_the_decoder_in_the_saelens_pairing_alone():
    for variant, expected in (("saelens", True), ("paper", False)):
        grads = gradient(gated(variant), "auxiliary_reconstruction_loss")
        assert moves(grads["W_dec"]) is expected and moves(grads["b_gate"])
        # the decoder's bias reaches the paper's term through the encoder's input only
        assert moves(grads["W_enc"]) and moves(grads["b_dec"])


def test_the_sparsity_of_the_saelens_pairing_alone_sees_row_norms():
    for variant, expected in (("saelens", True), ("paper", False)):
        assert moves(gradient(gated(variant), "l1_loss")["W_dec"]) is expected
    sae = gated("saelens")
    before = sae.training_forward_pass(step_input(rows())).losses["l1_loss"]
    with torch.no_grad():
        sae.W_dec.mul_(3)
    after = sae.training_forward_pass(step_input(rows())).losses["l1_loss"]
    torch.testing.assert_close(after, 3 * before)


def test_paper_rows_keep_norm_one_and_gradients_run_across_them():
    sae = gated("paper")
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        sae.training_forward_pass(step_input(rows())).loss.backward()
        along = (sae.W_dec.grad * sae.W_dec).sum(1)
        torch.testing.assert_close(along, torch.zeros(F), atol=1e-4, rtol=0)
        optimizer.step()
        sae.keep_unit_norm()
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F))


def test_gradients_agree_with_finite_differences():
    sae = gated("paper").double()
    sae.dtype = torch.float64
    x = rows().double()
    sae.training_forward_pass(step_input(x)).loss.backward()
    for name in ("b_mag", "r_mag"):  # smooth where no gate opens or shuts
        weight = sae.get_parameter(name)
        expected = weight.grad
        for at in (0, 7):
            values = []
            for change in (1e-6, -2e-6):
                with torch.no_grad():
                    weight[at] += change
                values.append(float(sae.training_forward_pass(step_input(x)).loss.detach()))
            with torch.no_grad():
                weight[at] += 1e-6
            slope = (values[0] - values[1]) / 2e-6
            assert slope == pytest.approx(float(expected[at]), rel=1e-4, abs=1e-7)
