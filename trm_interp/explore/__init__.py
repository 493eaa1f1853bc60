"""The live explorer: watch a model think, reach in, and see what changes.

`session` computes runs and their forks without any page; `serving` shows them in a browser, for
which Dash is needed (`pip install 'trm-interp[explore]'`).
"""
