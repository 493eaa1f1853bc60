"""Floating-point operations of a TRM: a multiply-add counts as two, norms and gates as nothing."""

from trm_interp.core.config import TRMConfig


def evaluation_flops(config: TRMConfig) -> int:
    """One network evaluation of one puzzle.

    >>> evaluation_flops(TRMConfig())  # 2 blocks: 2 * 3 * (97 * 512 * 512 + 512 * 1536 * 97)
    1220542464
    """
    n, d = config.positions, config.d_model
    channels = 3 * d * config.swiglu_width(d) * n
    if config.mixer == "attention":
        mixing = 4 * d * d * n + 2 * n * n * d
    else:
        mixing = 3 * n * config.swiglu_width(n) * d
    return 2 * config.n_layers * (channels + mixing)


def step_flops(
    config: TRMConfig, training: bool = False, depth: tuple[int, int] | None = None
) -> int:
    """One supervision step of one puzzle, read-outs included; with `training` also the backward.

    The backward costs twice the forward of the last H-cycle, the only one with gradient. `depth`
    is (H_cycles, L_cycles) where they are not the model's own.

    >>> round(step_flops(TRMConfig(), depth=(1, 2)) / step_flops(TRMConfig()), 3)  # 3 of 21
    0.143
    """
    h_cycles, l_cycles = depth or (config.h_cycles, config.l_cycles)
    per_cycle = l_cycles + 1
    evaluations = h_cycles * per_cycle + (2 * per_cycle if training else 0)
    head = 2 * config.cells * config.d_model * config.vocab
    return evaluations * evaluation_flops(config) + head * (3 if training else 1)
