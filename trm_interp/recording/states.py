"""The states of a store as analysis takes them: one puzzle after another, whole states as rows."""

from collections.abc import Callable, Iterator

import numpy as np

from trm_interp.recording.store import Store


def states_of(store: Store, site: str) -> Callable[[], Iterator[np.ndarray]]:
    """Gives every puzzle's states [tick, pos * d_model], in order, each time it is called."""
    width = int(np.prod(store[site].shape[-2:]))

    def read() -> Iterator[np.ndarray]:
        for chunk in store.iter(site):
            yield chunk.reshape(-1, width)

    return read
