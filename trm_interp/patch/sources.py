"""What is put in the place of a state or a site: another run, noise, a mean, zero, a shift."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from trm_interp.core.counter import hash64, normal
from trm_interp.patch.recorded import Recorded
from trm_interp.runtime.shapes import Int
from trm_interp.tasks.symmetry import Symmetry


class Source(Protocol):
    """Gives new values for a hook point."""

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        """[row, pos, d_model], what is put at a hook point where now `now` is, in the same shape.

        `runs`: which of the recorded runs each row continues.
        """
        ...

    def check(self, base: Recorded) -> None:
        """ValueError where it does not fit the runs that it is put into."""


class Donor:
    """The same hook point of other runs: of the same puzzles from another start, or of others.

    `order` int [run]: which of the donor's runs goes into each run; default the one of its own
    number. So `Donor(donor, torch.arange(n).roll(1))` takes the next puzzle's.
    """

    def __init__(self, donor: Recorded, order: Int[Tensor, " run"] | None = None) -> None:
        self.donor, self.order = donor, torch.arange(len(donor)) if order is None else order

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        return self.for_runs(self.donor.value(hook), runs).to(now.dtype)

    def for_runs(self, value: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        """[row, pos, d_model]: of a value of the donor [run, pos, d_model] what goes into these
        runs."""
        return value[self.order.to(runs.device)[runs]]

    def check(self, base: Recorded) -> None:
        _require_alike(base, self.donor)
        if len(self.order) != len(base):
            raise ValueError(
                f"a donor of {len(self.order)} runs for {len(base)}: record as many, or give an "
                "order, the donor's run for each"
            )


class MappedBack(Donor):
    """Runs of symmetric copies of the puzzles, their positions mapped back.

    `symmetry` made the copies of the puzzles; only its permutation of cells can be undone in a
    state. A copy whose tokens are renamed as well is another puzzle to the model: make it with
    `moves_only(symmetry)`.
    """

    def __init__(self, donor: Recorded, symmetry: Symmetry) -> None:
        super().__init__(donor)
        prefix = donor.model.config.prefix
        back = symmetry.cells.argsort(1) + prefix
        self.back = torch.cat([torch.arange(prefix).expand(len(back), -1), back], 1)

    def for_runs(self, value: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        value = super().for_runs(value, runs)
        back = self.back.to(runs.device)[runs]
        return value.gather(1, back[..., None].expand_as(value))


def moves_only(symmetry: Symmetry) -> Symmetry:
    """The same permutations of the cells with all tokens left as they are."""
    tokens = symmetry.tokens
    plain = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    return Symmetry(symmetry.cells, plain)


class Mean:
    """At every position the mean over recorded runs, the usual ablation."""

    def __init__(self, over: Recorded) -> None:
        self.over = over

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        mean = self.over.value(hook).float().mean(0, keepdim=True)
        return mean.to(now.dtype).expand_as(now)

    def check(self, base: Recorded) -> None:
        _require_alike(base, self.over)


class Zero:
    """Zeros. States have RMS 1, so this is far from anything that a run holds."""

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        return torch.zeros_like(now)

    def check(self, base: Recorded) -> None:
        """Fits everything."""


class Fixed:
    """By hook point one vector [d_model] for every position and run, such as a mean over others.

    With `directions` in the cell this takes out what they tell and leaves their mean.
    """

    def __init__(self, vectors: Mapping[str, Tensor]) -> None:
        self.vectors = vectors

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        if hook not in self.vectors:
            raise ValueError(f"no vector for {hook}; there are {', '.join(self.vectors)[:200]}")
        return self.vectors[hook].to(now.device, now.dtype).expand_as(now)

    def check(self, base: Recorded) -> None:
        for hook, vector in self.vectors.items():
            if list(vector.shape) != [base.x.shape[2]]:
                raise ValueError(
                    f"the vector of {hook} has shape {list(vector.shape)}, states have "
                    f"{base.x.shape[2]} numbers at a position"
                )


class Noise:
    """A random change as large as the donor's at every position: the control for its direction.

    Named by seed, hook point and run alone, so it is the same in any batch. `names`: a number for
    every recorded run; by default its place, so that runs recorded apart share their noise.
    """

    def __init__(
        self, donor: Recorded, seed: int = 0, names: Int[Tensor, " run"] | None = None
    ) -> None:
        self.donor, self.seed, self.names = Donor(donor), seed, names

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        size = (self.donor.at(hook, now, runs) - now).float().norm(dim=-1, keepdim=True)
        point = int(hash64(*hook.encode()))
        named = runs if self.names is None else self.names.to(runs.device)[runs]
        drawn = normal(now[0].numel(), self.seed, point, named).view(now.shape)
        return (now + size * drawn / drawn.norm(dim=-1, keepdim=True)).to(now.dtype)

    def check(self, base: Recorded) -> None:
        self.donor.check(base)
        if self.names is not None and len(self.names) != len(base):
            raise ValueError(f"{len(self.names)} names for the noise of {len(base)} runs")


class Edit:
    """A function of what is there: `Edit(lambda z: z + 2 * direction)` steers."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def at(self, hook: str, now: Tensor, runs: Int[Tensor, " row"]) -> Tensor:
        new = self.change(now)
        if new.shape != now.shape:
            raise ValueError(f"an edit of {list(now.shape)} gave {list(new.shape)}")
        return new

    def check(self, base: Recorded) -> None:
        """Seen when it is called."""


Gives = Source | Recorded | Callable[[Tensor], Tensor]


def source_of(given: Gives) -> Source:
    """A source; recorded runs stand for `Donor`, a function for `Edit`."""
    if isinstance(given, Recorded):
        return Donor(given)
    if hasattr(given, "at"):
        return given  # type: ignore[return-value]
    if callable(given):
        return Edit(given)
    raise TypeError(f"a source is recorded runs, a function or one of this module, got {given!r}")


def _require_alike(base: Recorded, donor: Recorded) -> None:
    ours, theirs = base.x.shape[1:], donor.x.shape[1:]
    if ours != theirs:
        raise ValueError(
            f"the donor's states have {theirs[0]} positions of {theirs[1]} numbers, those of the "
            f"runs that it is put into {ours[0]} of {ours[1]}: record both with one model"
        )
    if donor.steps < base.steps:
        raise ValueError(
            f"the donor has {donor.steps} supervision steps, the runs that it is put into "
            f"{base.steps}: record as many"
        )
