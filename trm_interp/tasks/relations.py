"""How cells of a board are related: what is near a cell, and what is far from it."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

ITSELF, UNRELATED = "itself", "unrelated"


class HasRelations(ABC):
    """The part of a `Task` that says how cells are related. By default: by their places."""

    @abstractmethod
    def places(self) -> dict[str, NDArray[np.int64]]:
        """As in `Task`."""

    def related(self, inputs: NDArray[np.uint8], cell: int) -> dict[str, NDArray[np.bool_]]:
        """By name of the relation, from near to far, bool [cell]: which cells of a puzzle [cell]
        have it to the given one. The first is the cell itself, the last those that have none of the
        others. The names are the same for all puzzles and cells; a cell may have several.

        >>> class Row(HasRelations):
        ...     def places(self):
        ...         return {"row": np.array([0, 0, 1])}
        >>> {name: of.tolist() for name, of in Row().related(np.zeros(3, np.uint8), 1).items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'itself': [False, True, False], 'same row': [True, False, False],
         'unrelated': [False, False, True]}
        """
        own = np.arange(len(inputs)) == cell
        relations = {ITSELF: own}
        for name, of in self.places().items():
            relations[f"same {name}"] = (of == of[cell]) & ~own
        return relations | {UNRELATED: ~np.logical_or.reduce([*relations.values()])}
