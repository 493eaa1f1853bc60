"""The core runs on a bare machine: torch, numpy and safetensors, and its settings without those."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_settings_do_not_import_torch():
    code = """
import sys, trm_interp.core.clock, trm_interp.core.models.registry
import trm_interp.core.models.config, trm_interp.core.training.settings
from trm_interp.core import TRMConfig, TrainConfig
print(sorted({"torch", "numpy", "pandas", "transformer_lens"} & sys.modules.keys()))"""
    assert python(code).strip() == "[]"


def test_core_imports_only_torch_numpy_and_safetensors():
    """Everything else that torch does not itself bring is made unimportable, and a model runs."""
    code = """
import sys, torch, numpy, safetensors.torch
brought = set(sys.modules)

class Bare:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        allowed = {"trm_interp", "torch", "numpy", "safetensors", *sys.stdlib_module_names}
        if first not in allowed:
            wanted.add(first)
            raise ImportError(f"{name} is not on this machine")

wanted = set()
sys.meta_path.insert(0, Bare())
import pkgutil, trm_interp.core as core
for module in pkgutil.walk_packages(core.__path__, "trm_interp.core."):
    __import__(module.name)
print(sorted(wanted - {"jaxtyping"}))  # taken where it is there
model = core.TRM(core.TRMConfig(cells=4, vocab=4, d_model=8))
tokens = torch.ones(1, 4, dtype=torch.int64)
print(core.run(model, tokens, tokens, steps=1).loss.shape)
print({"pandas", "transformer_lens", "h5py", "yaml"} & (sys.modules.keys() - brought))"""
    assert python(code).splitlines() == ["[]", "torch.Size([1, 1])", "set()"]


def test_every_name_of_the_core_is_found_again():
    """Also after its module is imported: a submodule of the same name would stand in its place."""
    import trm_interp.core as core

    for name in core.__all__:
        assert getattr(core, name) is getattr(core, name)
        assert not hasattr(getattr(core, name), "__path__")
        assert getattr(core, name).__name__ == name


def test_the_settings_of_a_trm_are_also_where_they_stood():
    from trm_interp.core.models import config, trm_config

    assert config.TRMConfig is trm_config.TRMConfig
