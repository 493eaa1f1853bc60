"""The states of a store as analysis takes them: one puzzle after another, whole states as rows."""

from collections.abc import Callable, Iterator

import numpy as np

from trm_interp.recording.store import Store


def states_of(
    store: Store, site: str, puzzles: range | None = None
) -> Callable[[], Iterator[np.ndarray]]:
    """Gives the states [tick, pos * d_model] of one puzzle after another, by default of all, each
    time it is called."""
    width = int(np.prod(store[site].shape[-2:]))

    def read() -> Iterator[np.ndarray]:
        chosen = store.iter(site) if puzzles is None else map(store[site].__getitem__, puzzles)
        for chunk in chosen:
            yield chunk.reshape(-1, width)

    return read
