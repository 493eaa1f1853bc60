"""Studies by their names, for scripts and notebooks."""

from importlib import import_module
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.studies.settings import CONFIGS


def run_study(name: str, *, tell: Tell = print, progress: Update = quiet, **settings: Any) -> Any:
    """Run a study as its command does; its result, whose numbers are also in `out`/summary.json.

    `settings`: the fields of its configuration (`studies.settings.CONFIGS`), such as
    `run_study("outcomes", out=Path("runs/outcomes"), limit=100)`. UserError names the studies that
    there are, and what is wrong with a value.
    """
    if name not in CONFIGS:
        raise UserError(f"no study {name!r}; there are {', '.join(CONFIGS)}")
    module = import_module(f"trm_interp.studies.{name}")
    return module.run(CONFIGS[name](**settings), tell, progress)
