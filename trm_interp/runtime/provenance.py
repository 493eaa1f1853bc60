"""What computed a result: versions and commit, written beside it."""

import platform
import subprocess
from pathlib import Path

import h5py
import numpy as np
import torch

from trm_interp import __version__


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
    """Commit of the source tree this package runs from; None where there is none."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
