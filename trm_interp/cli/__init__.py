"""The `trm-interp` command, one file a command group."""

from trm_interp.cli.app import app, main

__all__ = ["app", "main"]
