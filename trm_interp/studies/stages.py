"""Progress of a study that does several kinds of work one after another."""

from trm_interp.studies.results import Progress


class Stages:
    """Progress over stages. `sizes`: what each costs, all in one unit."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.total = sizes, sum(sizes)

    def stage(self, i: int, progress: Progress) -> Progress:
        """Progress within stage `i`, in any unit."""
        before, size = sum(self.sizes[:i]), self.sizes[i]
        return lambda done, of: progress(before + size * done // max(of, 1), self.total)
