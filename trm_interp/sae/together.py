"""One optimizer step of an SAE on the rows of several processes, as one process would do it.

Every process has some rows of the batch, a few more or fewer than the others. Losses are means over
the rows of the batch; DDP adds up their gradients. What else depends on the whole batch is
exchanged: which features fired, the choice of BatchTopK, and the rows from which dead features are
revived. So weights and counts are the same in all processes, and those of one process but for the
order of sums.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TrainingSAE
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor, nn

from trm_interp.core.ranks import Ranks, with_mean_gradients
from trm_interp.runtime.shapes import Float, Int


class Together:
    """The processes of a torchrun, for the trainer: what it asks of an SAE in a step."""

    def __init__(self, sae: TrainingSAE[Any], ranks: Ranks, batch_size: int) -> None:
        self.ranks, self.batch_size = ranks, batch_size
        # the threshold of BatchTopK is a buffer, and the same everywhere
        self._forward = with_mean_gradients(_Forward(sae))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Of the rows of this process; its loss gives, after DDP's mean, the batch's gradient."""
        output = self._forward(step_input)
        share = len(step_input.sae_in) / self.batch_size
        return replace(output, loss=output.loss * share * self.ranks.size)

    def totals(
        self, fired: Float[Tensor, " feature"], output: TrainStepOutput
    ) -> tuple[Float[Tensor, " feature"], TrainStepOutput]:
        """How many rows of the batch each feature fired on, and the output with its losses."""
        share = len(output.sae_in) / self.batch_size
        own = torch.stack([loss.detach().float() for loss in output.losses.values()])
        own = own * share if share else torch.zeros_like(own)  # the mean of no rows is NaN
        whole = self.ranks.total(torch.cat([fired, own]))
        fired, losses = whole[: len(fired)], whole[len(fired) :]
        named = dict(zip(output.losses, losses, strict=True))
        return fired, replace(output, loss=losses.sum(), losses=named)

    def whole(
        self, own: Float[Tensor, "row d_model"], places: Int[Tensor, " row"]
    ) -> Float[Tensor, "batch d_model"]:
        """The rows of the batch in its order, from those of every process."""
        rows = torch.zeros(self.batch_size, own.shape[1], device=own.device)
        rows[places.to(own.device)] = own.detach().float()
        return self.ranks.total(rows)


class _Forward(nn.Module):
    def __init__(self, sae: TrainingSAE[Any]) -> None:
        super().__init__()
        self.sae = sae

    def forward(self, step_input: TrainStepInput) -> TrainStepOutput:
        return self.sae.training_forward_pass(step_input)


class SharedBatchTopKSAE(BatchTopKTrainingSAE):
    """BatchTopK whose k activations a row, on average, are the largest of all processes' rows."""

    def __init__(self, cfg: BatchTopKTrainingSAEConfig, ranks: Ranks, batch_size: int) -> None:
        super().__init__(cfg)
        self.ranks = ranks
        self.shared = _LargestOfAll(ranks, int(cfg.k * batch_size))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        alone, self.activation_fn = self.activation_fn, self.shared
        try:
            return super().training_forward_pass(step_input)
        finally:
            self.activation_fn = alone

    @torch.no_grad()
    def update_topk_threshold(self, acts_topk: Tensor) -> None:
        positive = acts_topk[acts_topk > 0]
        smallest = float(positive.min()) if len(positive) else math.inf
        (below,) = self.ranks.most(-smallest)
        if below > -math.inf:
            super().update_topk_threshold(acts_topk.new_tensor([-below]))


class _LargestOfAll(nn.Module):
    """The n largest activations of all processes, the rest 0."""

    def __init__(self, ranks: Ranks, n: int) -> None:
        super().__init__()
        self.ranks, self.n = ranks, n

    def forward(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
        acts = x.relu()
        flat = acts.flatten()
        values, places = flat.topk(min(self.n, len(flat)))
        offered = flat.new_full((self.n,), -1.0)  # below every activation
        offered[: len(values)] = values.detach()
        chosen = self.ranks.gather(offered).topk(self.n).indices
        first = self.ranks.rank * self.n
        mine = chosen[(chosen >= first) & (chosen < first + len(values))] - first
        kept = torch.zeros_like(flat).scatter(0, places[mine], values[mine])
        return kept.reshape(acts.shape)
