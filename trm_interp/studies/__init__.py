"""The attractor landscape: every figure of the seed paper on a checkpoint or a store.

A module a part. `run(config)` measures, writes tables and figures into a folder of its own and
returns the numbers that claims are judged by; the measures themselves are in `analysis`.
"""
