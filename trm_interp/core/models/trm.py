"""TRM (arXiv 2510.04871): one small network, applied 336 times.

The states z_H and z_L have RMS 1 at every position, or over positions, depending on the last norm.
What its ablations change is a setting of `TRMConfig`, or a model of `trm_relatives`.
"""

from trm_interp.core.models.blocks import State, TwoStateModel
from trm_interp.core.models.trm_config import TRMConfig

__all__ = ["TRM", "State"]


class TRM(TwoStateModel):
    """A Tiny Recursive Model: embedding, one network, two read-outs.

    `embed` the puzzle once, take an `initial_state`, `advance` it by supervision steps, `readout`
    whenever wanted. The compute dtype is that of `embed`'s result; weights stay float32.
    """

    architecture = "trm"
    Config = TRMConfig

    config: TRMConfig
