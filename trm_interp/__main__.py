"""`python -m trm_interp`, which torchrun needs."""

from trm_interp.cli import main

main()
