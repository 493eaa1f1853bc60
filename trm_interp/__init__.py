"""Open up Tiny Recursive Models: train, run, record and analyse them (arXiv 2510.04871)."""

__version__ = "0.1.0"
