"""Gated SAEs (Rajamanoharan et al., arXiv 2404.16014) with one encoder product a step.

sae-lens multiplies the batch with the encoder three times (gate, magnitude, auxiliary term) and
sends a gradient through it to the decoder bias. Here x W_enc is computed once, and the bias enters
as b_dec W_enc, a product with a vector: the same loss, about half of the work.
"""

import torch
from sae_lens import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from trm_interp.core.models.layers import at_least_float32
from trm_interp.runtime.shapes import Float
from trm_interp.sae.settings import Variant


class GatedSAE(GatedTrainingSAE):
    """The gated training SAE of sae-lens, in one of two consistent pairings.

    saelens: the L1 of the gate is weighted by the decoder's row norms, and the auxiliary term
    trains the decoder too. paper: decoder rows keep norm 1 (call `keep_unit_norm` after every
    optimizer step; gradients along the rows are removed), the L1 is plain, and the auxiliary term
    sees the decoder frozen. A mixture of the two collapses the decoder.
    """

    def __init__(self, cfg: GatedTrainingSAEConfig, variant: Variant = "saelens") -> None:
        super().__init__(cfg)
        self.variant = variant
        if variant == "paper":
            self.keep_unit_norm()
            with torch.no_grad():
                self.W_enc.copy_(self.W_dec.T)
            self.W_dec.register_hook(lambda grad: _across(grad, self.W_dec.detach()))

    @torch.no_grad()
    def keep_unit_norm(self) -> None:
        """Decoder rows back to norm 1; nothing in the saelens pairing."""
        if self.variant == "paper":
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def gates(
        self, x: Float[Tensor, "batch d_model"]
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch feature"]]:
        """Pre-activations of gate and magnitude, from one product with the encoder."""
        x = self.reshape_fn_in(x.to(self.dtype))
        product = self.hook_sae_input(x) @ self.W_enc
        if self.cfg.apply_b_dec_to_input:
            product = product - self.b_dec @ self.W_enc
        magnitude = self.hook_sae_acts_pre(product * self.r_mag.exp() + self.b_mag)
        return product + self.b_gate, magnitude

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate, magnitude = self.gates(x)
        return self._open(gate, magnitude), magnitude

    def _open(self, gate: Tensor, magnitude: Tensor) -> Tensor:
        return self.hook_sae_acts_post((gate > 0).to(self.dtype) * self.activation_fn(magnitude))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        x = step_input.sae_in
        gate, magnitude = self.gates(x)
        acts = self._open(gate, magnitude)
        out = self.decode(acts)
        open_gate = torch.relu(gate)
        if self.variant == "paper":
            sparsity = open_gate.sum(-1).mean()
            by_gate = open_gate @ self.W_dec.detach() + self.b_dec.detach()
        else:
            sparsity = (open_gate @ self.W_dec.norm(dim=1)).mean()
            by_gate = open_gate @ self.W_dec + self.b_dec
        losses = {
            "mse_loss": _squared_error(out, x),
            "l1_loss": step_input.coefficients["l1"] * sparsity,
            "auxiliary_reconstruction_loss": _squared_error(by_gate, x),
        }
        loss = torch.stack(list(losses.values())).sum()
        return TrainStepOutput(x, out, acts, magnitude, loss, losses)


def _squared_error(out: Tensor, x: Tensor) -> Tensor:
    """Squared distance, mean over the batch; in float32 where products are bfloat16."""
    return (at_least_float32(out) - x).square().sum(-1).mean()


def _across(grad: Tensor, rows: Tensor) -> Tensor:
    """The part of a gradient that does not change the length of unit rows."""
    return grad - (grad * rows).sum(1, keepdim=True) * rows
