"""`trm-interp hooks`: the names by which activations of a run are recorded and edited."""

from collections.abc import Callable

from trm_interp.recording.hooks import hook_names
from trm_interp.recording.settings import HooksConfig
from trm_interp.subjects.opening import open_checkpoint
from trm_interp.subjects.settings import default_checkpoint


def run(
    config: HooksConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[str]:
    """Names of all hook points, in the order in which they fire."""
    if not config.ckpt:
        tell(f"taking {default_checkpoint()}")
    model = open_checkpoint(config.ckpt or default_checkpoint(), cells=config.cells).model
    return hook_names(model.config, config.steps)


def lines(names: list[str]) -> list[str]:
    """One name a line."""
    return names
