"""The Python of the README runs as it stands, in the memory that a laptop has."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 2.0  # GB at most; with the graph of one run more than 8 would be needed
MEASURE = """
from trm_interp.core.memory import peak_memory

shapes = readout.logits.shape, readout.q_halt.shape
assert shapes == ((8, 16, 36, 8), (8, 16)), shapes
assert len(cache) == 288 and not readout.logits.requires_grad
assert read.solved.shape == (8, 16)
print(peak_memory() / 1e9)
"""


def test_python_examples_run_in_little_memory():
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example + MEASURE],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.splitlines()[-1]) < LIMIT
