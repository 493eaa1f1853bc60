"""Looped language models for tests: HRM-Text of transformers, and stand-ins for two others.

The code of Ouro and Huginn comes with their weights. The stand-ins have the module tree that the
adapters of transformer-lens ask for and the loop of the published code; they cannot load weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import HrmTextConfig, HrmTextForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

WIDTH, VOCAB = 16, 50


def hrm_text(h_cycles: int = 2, l_cycles: int = 3) -> HrmTextForCausalLM:
    """The real class, tiny: two layers a stack, random weights."""
    config = HrmTextConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=8,
        max_position_embeddings=32,
        initializer_range=0.2,
        H_cycles=h_cycles,
        L_cycles=l_cycles,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return HrmTextForCausalLM(config).eval()


def bridge_of(model: Any, architecture: str = "HrmTextForCausalLM") -> TransformerBridge:
    return build_bridge_from_module(model, architecture, hf_config=model.config)


@contextmanager
def plain_hook(
    module: nn.Module, function: Callable[[int, Tensor], Tensor | None]
) -> Iterator[None]:
    """A torch hook that is told which of its calls it is; nothing of ours in it."""
    calls = 0

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return function(calls - 1, output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def clean(model: Any) -> bool:
    """Whether a model has no hooks left."""
    root = model.__dict__.get("original_model", model)
    points = [
        point for point in model.hook_dict.values() if point._forward_hooks or point.fwd_hooks
    ]
    return not points and not root._forward_hooks and not root._forward_pre_hooks


class OuroLayer(nn.Module):
    """Attention and MLP with a norm before and after each, as Ouro has them."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer)
        self.mlp = LlamaMLP(config)
        for place in ("input_layernorm", "post_attention_layernorm"):
            for name in (place, f"{place}_2"):
                self.add_module(name, LlamaRMSNorm(config.hidden_size))

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        heard, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.input_layernorm_2(heard)
        written = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.post_attention_layernorm_2(written)


class Ouro(nn.Module):
    """The same stack `total_ut_steps` times, with the norm after every pass."""

    def __init__(self, passes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
        config._attn_implementation = "eager"
        config.total_ut_steps = passes
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCAB, WIDTH)
        self.model.rotary_emb = LlamaRotaryEmbedding(config)
        self.model.layers = nn.ModuleList(OuroLayer(config, i) for i in range(2))
        self.model.norm = LlamaRMSNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.eval()

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        length = input_ids.shape[1]
        hidden = self.model.embed_tokens(input_ids)
        mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
        at = self.model.rotary_emb(hidden, torch.arange(length)[None])
        for _ in range(self.config.total_ut_steps):
            for layer in self.model.layers:
                hidden = layer(hidden, attention_mask=mask, position_embeddings=at)
            hidden = self.model.norm(hidden)
        return SimpleNamespace(logits=self.lm_head(hidden))


class HuginnAttention(nn.Module):
    """Its parts by name; positions do not look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.Wqkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.proj(self.Wqkv(x).chunk(3, -1)[2])


class HuginnMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc(x).chunk(2, -1)
        return self.proj(nn.functional.silu(gate) * value)


class HuginnBlock(nn.Module):
    """Norms before a part and after its sum with the stream, as Huginn has them."""

    def __init__(self) -> None:
        super().__init__()
        for k in range(1, 5):
            self.add_module(f"norm_{k}", LlamaRMSNorm(WIDTH))
        self.attn, self.mlp = HuginnAttention(), HuginnMLP()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_2(self.attn(self.norm_1(x)) + x)
        return self.norm_4(self.mlp(self.norm_3(x)) + x)


class Huginn(nn.Module):
    """Prelude, a core that is applied `num_steps` times, coda; from a start that is not random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = LlamaConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=2
        )
        self.config.mean_recurrence = 4
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(VOCAB, WIDTH)
        self.transformer.adapter = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        for name, blocks in (("prelude", 1), ("core_block", 2), ("coda", 1)):
            part = nn.ModuleList(HuginnBlock() for _ in range(blocks))
            self.transformer.add_module(name, part)
        self.transformer.ln_f = LlamaRMSNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.eval()

    def forward(self, input_ids: Tensor, num_steps: int | None = None, **kwargs: Any) -> Any:
        parts = self.transformer
        x = parts.wte(input_ids)
        for block in parts.prelude:
            x = block(x)
        state = torch.zeros_like(x)
        for _ in range(num_steps or self.config.mean_recurrence):
            state = parts.adapter(torch.cat([state, x], -1))
            for block in parts.core_block:
                state = block(state)
        state = parts.ln_f(state)
        for block in parts.coda:
            state = block(state)
        return SimpleNamespace(logits=self.lm_head(parts.ln_f(state)))
