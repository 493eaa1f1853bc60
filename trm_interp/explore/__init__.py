"""The live explorer: watch a model think, reach in, and see what changes.

`session` computes runs and their forks without any page; `serving` shows them in a browser, for
which Dash is needed (`pip install 'trm-interp[explore]'`). In a notebook the module is called:
`trm_interp.explore("artifacts/trm-sudoku6")` shows the same page below the cell.
"""

import sys
from types import ModuleType
from typing import Any


class _Explore(ModuleType):
    """The module, which can be called."""

    def __call__(self, *given: Any, **more: Any) -> str:
        """See `notebook.explore`."""
        from trm_interp.explore.notebook import explore

        return explore(*given, **more)


sys.modules[__name__].__class__ = _Explore
