"""Test-time search: many noisy runs of one puzzle, and how to choose among their answers."""
