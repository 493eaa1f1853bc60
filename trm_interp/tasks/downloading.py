"""`trm-interp data download`: fetch a public data set."""

from pathlib import Path

from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import downloads, offering
from trm_interp.tasks.settings import DownloadConfig


def run(config: DownloadConfig, tell: Tell = print, progress: Update = quiet) -> list[Path]:
    """Fetch the data set into `config.folder`; its files. UserError for a name that none has."""
    family = offering(downloads(), config.name, "data set to download")
    return list(family.download(config.name, config.folder))


def lines(files: list[Path]) -> list[str]:
    """Which files there are."""
    return [f"wrote {file}" for file in files]
