"""Old home of the settings; each name's own module is its new one."""

from trm_interp.core.clock import MOST_COUNTED, MOST_STEPS
from trm_interp.core.models.config import MAX_EVALUATIONS, TRMConfig
from trm_interp.core.training.config import PRESETS, TrainConfig, minutes
from trm_interp.runtime.settings import argument, in_range, positive, required, setting

__all__ = ["MAX_EVALUATIONS", "MOST_COUNTED", "MOST_STEPS", "PRESETS", "TRMConfig", "TrainConfig"]
__all__ += ["argument", "in_range", "minutes", "positive", "required", "setting"]
