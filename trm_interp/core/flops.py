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


def step_flops(config: TRMConfig, training: bool = False) -> int:
    """One supervision step of one puzzle, read-outs included; with `training` also the backward.

    The backward costs twice the forward of the last H-cycle, the only one with gradient.
    """
    per_cycle = config.l_cycles + 1
    evaluations = config.h_cycles * per_cycle + (2 * per_cycle if training else 0)
    head = 2 * config.cells * config.d_model * config.vocab
    return evaluations * evaluation_flops(config) + head * (3 if training else 1)
