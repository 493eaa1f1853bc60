"""Open up recursive reasoning models: train, run, record and analyse them.

The names below are what most work needs; each is imported when it is first used, so that
`import trm_interp` takes no time. Everything else is in the rooms: `trm_interp.analysis`,
`trm_interp.figures`, `trm_interp.studies` and so on.

>>> import torch, trm_interp
>>> checkpoint = trm_interp.load_checkpoint("artifacts/trm-sudoku6")
>>> puzzles = trm_interp.load_puzzles("artifacts/data/sudoku6/test.txt", limit=2)
>>> inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
>>> readouts = trm_interp.run(checkpoint.model, inputs, labels, steps=3)
>>> readouts.solved.shape  # puzzle, supervision step
torch.Size([2, 3])

Every activation of every network evaluation has a name, by which it is read and edited:

>>> hooked = trm_interp.HookedModel.of(checkpoint.model, n_sup=1)
>>> trm_interp.hook_names(checkpoint.model, n_sup=1)[-2:]
['step.0.hook_logits', 'step.0.hook_q_halt']
>>> _, cache = hooked.run_with_cache(inputs, names_filter="step.0.h.2.hook_z_H")
>>> cache["step.0.h.2.hook_z_H"].shape  # puzzle, pos, d_model
torch.Size([2, 36, 96])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trm_interp.runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from trm_interp.core.checkpoints.folder import Checkpoint, load_checkpoint, save_checkpoint
    from trm_interp.core.infer import Readouts, run
    from trm_interp.core.models.registry import architecture
    from trm_interp.core.training.settings import TrainConfig
    from trm_interp.recording.collect import collect
    from trm_interp.recording.hooks import HookedModel, hook_names
    from trm_interp.recording.hooks import recording as record
    from trm_interp.recording.looped import LoopedModel
    from trm_interp.recording.store import Store
    from trm_interp.report.compare import run as compare
    from trm_interp.report.settings import CompareConfig
    from trm_interp.runtime.artifacts import artifact
    from trm_interp.runtime.errors import UserError
    from trm_interp.sae.saved import load_sae
    from trm_interp.search.engine import search as search_puzzles
    from trm_interp.search.settings import SearchConfig
    from trm_interp.search.solve import solve
    from trm_interp.studies.accuracy import run as evaluate
    from trm_interp.studies.by_name import run_study
    from trm_interp.subjects.opening import open_both
    from trm_interp.subjects.settings import CollectConfig, EvalConfig, RunConfig
    from trm_interp.subjects.training import run as train
    from trm_interp.tasks.base import PuzzleSet, Task
    from trm_interp.tasks.registry import load_puzzles, task_named

_HOMES = {
    # open
    "load_checkpoint": "core.checkpoints.folder:load_checkpoint",
    "save_checkpoint": "core.checkpoints.folder:save_checkpoint",
    "Checkpoint": "core.checkpoints.folder:Checkpoint",
    "load_puzzles": "tasks.registry:load_puzzles",
    "PuzzleSet": "tasks.base:PuzzleSet",
    "open_both": "subjects.opening:open_both",
    "artifact": "runtime.artifacts:artifact",
    # run and train
    "run": "core.infer:run",
    "Readouts": "core.infer:Readouts",
    "evaluate": "studies.accuracy:run",
    "EvalConfig": "subjects.settings:EvalConfig",
    "train": "subjects.training:run",
    "RunConfig": "subjects.settings:RunConfig",
    "TrainConfig": "core.training.settings:TrainConfig",
    # look inside
    "HookedModel": "recording.hooks:HookedModel",
    "hook_names": "recording.hooks:hook_names",
    "record": "recording.hooks:recording",
    "LoopedModel": "recording.looped:LoopedModel",
    "collect": "recording.collect:collect",
    "CollectConfig": "subjects.settings:CollectConfig",
    "Store": "recording.store:Store",
    "load_sae": "sae.saved:load_sae",
    "run_study": "studies.by_name:run_study",
    "compare": "report.compare:run",
    "CompareConfig": "report.settings:CompareConfig",
    # search
    "search_puzzles": "search.engine:search",
    "SearchConfig": "search.settings:SearchConfig",
    "solve": "search.solve:solve",
    # kinds of puzzles and of models
    "Task": "tasks.base:Task",
    "task_named": "tasks.registry:task_named",
    "architecture": "core.models.registry:architecture",
    "UserError": "runtime.errors:UserError",
}
_ROOMS = ("analysis", "core", "explore", "figures", "patch", "recording", "report", "runtime")
_ROOMS += ("sae", "search", "studies", "subjects", "tasks")

__all__ = [
    "Checkpoint",
    "CollectConfig",
    "CompareConfig",
    "EvalConfig",
    "HookedModel",
    "LoopedModel",
    "PuzzleSet",
    "Readouts",
    "RunConfig",
    "SearchConfig",
    "Store",
    "Task",
    "TrainConfig",
    "UserError",
    "architecture",
    "artifact",
    "collect",
    "compare",
    "evaluate",
    "hook_names",
    "load_checkpoint",
    "load_puzzles",
    "load_sae",
    "open_both",
    "record",
    "run",
    "run_study",
    "save_checkpoint",
    "search_puzzles",
    "solve",
    "task_named",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name].split(":")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "__version__"})
