"""What computed a result: versions and commit, written with it."""

import platform
import subprocess

import h5py
import numpy as np
import torch

from trm_interp.runtime.artifacts import source_tree
from trm_interp.runtime.version import __version__


def versions() -> dict[str, str]:
    """Of what computed and wrote a store or a checkpoint."""
    return {
        "trm_interp": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
    }


def git_commit() -> str | None:
    """Commit of the source tree that this package runs from; None where there is none."""
    tree = source_tree()
    if tree is None:  # an installed package may lie in a repository of something else
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(tree), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
