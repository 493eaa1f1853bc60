"""Floating-point operations of a model: a multiply-add is two, norms and gates are nothing."""

from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import model_class


def evaluation_flops(config: ModelConfig, state: str | None = None) -> float:
    """One network evaluation of one puzzle, that which writes `state`.

    None: the mean over a supervision step, whose networks may be of unequal cost.
    """
    model, schedule = model_class(config), config.schedule
    if state is None:
        return model.schedule_flops(config, schedule) / schedule.evaluations
    return model.evaluation_flops(config, state)


def step_flops(
    config: ModelConfig, training: bool = False, depth: tuple[int, int] | None = None
) -> int:
    """One supervision step of one puzzle, read-outs included; with `training` also the backward.

    The backward costs twice the forward of what carries gradient, for a TRM the last H-cycle. HRM's
    halting is trained on the read-out one supervision step later, which is computed for it.
    `depth` is (H_cycles, L_cycles) where they are not the model's own.

    >>> from trm_interp.core.models.trm_config import TRMConfig
    >>> round(step_flops(TRMConfig(), depth=(1, 2)) / step_flops(TRMConfig()), 3)  # 3 of 21
    0.143
    """
    return model_class(config).step_flops(config, training, depth)
