"""What the rules of a task say of answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Verdict:
    """What the rules say of answers.

    `proved`: bool [n], a full answer that keeps the givens and obeys every rule. `broken`: bool
    [n, cell], cells that are not filled, change a given, or take part in breaking a rule.
    """

    proved: NDArray[np.bool_]
    broken: NDArray[np.bool_]
