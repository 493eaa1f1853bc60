"""Limits of numbers, checked before anything is allocated; errors are one line with the limit.

`name` is what the user calls the value, `advice` says which option to lower. All raise UserError,
which is a ValueError. Standard library only.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trm_interp.runtime.errors import UserError

LARGEST_INT = 2**63 - 1  # of an int64
LARGEST_SEED = LARGEST_INT  # every generator and hash in use takes it, or `seed32` of it
MOST_INDICES = 1_000_000  # of one list such as 0-3,15
GROUPS = Path("/sys/fs/cgroup")


def shown(value: object) -> str:
    """A value as messages show it, shortened.

    >>> shown(10**40)
    '10000000000000000000...'
    """
    text = str(value)
    return text if len(text) <= 23 else f"{text[:20]}..."


def finite(name: str, value: float | None) -> None:
    """UserError for NaN and infinities; None passes."""
    if value is not None and not math.isfinite(value):
        raise UserError(f"{name} must be finite, got {value}")


def at_most(name: str, value: float | None, limit: float, why: str = "") -> None:
    """UserError for a value above `limit`; None passes. `why` explains the limit."""
    if value is not None and value > limit:
        reason = f": {why}" if why else ""
        raise UserError(f"{name} must be at most {limit}, got {shown(value)}{reason}")


def int64(name: str, value: int | None) -> None:
    """UserError for an integer that does not fit int64; None passes."""
    if value is not None and not -LARGEST_INT <= value <= LARGEST_INT:
        raise UserError(f"{name} must lie within +-{LARGEST_INT}, got {shown(value)}")


def in_seed_range(seed: int | None, name: str = "seed") -> None:
    """UserError for a seed that some generators do not accept; None passes."""
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{name} must be from 0 to {LARGEST_SEED}, got {shown(seed)}")


def seed32(seed: int) -> int:
    """A seed for generators that take 32 bits (scikit-learn, umap-learn); small ones stay.

    >>> seed32(7), seed32(7 + (3 << 32))
    (7, 4)
    """
    return (seed ^ (seed >> 32)) & 0xFFFF_FFFF


def parse_indices(text: str | None, name: str) -> list[int] | None:
    """Indices from 0, ranges with both ends; None for all.

    >>> parse_indices("0-2,15", "steps")
    [0, 1, 2, 15]
    """
    if text is None:
        return None
    indices: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"{name}: {shown(part.strip())!r} is no index or range; try 0-3,15")
        low, high = (_index(bound, name) for bound in (first, last if dash else first))
        if high < low:
            raise UserError(f"{name}: the range {part.strip()!r} is empty")
        if high - low >= MOST_INDICES or len(indices) > MOST_INDICES:
            raise UserError(f"{name}: {shown(text)!r} names more than {MOST_INDICES} indices")
        indices.update(range(low, high + 1))
    return sorted(indices)


def counted(n: int, name: str) -> str:
    """A number of things.

    >>> counted(1, "puzzle"), counted(2, "puzzle"), counted(0, "puzzle")
    ('1 puzzle', '2 puzzles', '0 puzzles')
    """
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


def as_ranges(indices: Iterable[int]) -> str:
    """Sorted indices in the form that `parse_indices` reads.

    >>> as_ranges([0, 1, 2, 15, 17, 18]), as_ranges([])
    ('0-2,15,17-18', '')
    """
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _index(digits: str, name: str) -> int:
    if len(digits.lstrip("0")) > len(str(LARGEST_INT)) or int(digits) > LARGEST_INT:
        raise UserError(f"{name}: {shown(digits)} is above the largest index, {LARGEST_INT}")
    return int(digits)


class Memory(NamedTuple):
    n_bytes: int
    source: str  # what grants it, for a message


def memory_limit() -> Memory:
    """The most memory that this process can have: by the machine, its control group or ulimit."""
    limits = [Memory(_physical(), "this machine has")]
    limits += [Memory(size, "the control group allows") for size in _of_control_group()]
    if (left := _address_space_left()) is not None:
        limits.append(Memory(left, "`ulimit -v` leaves"))
    return min(limits)


def require_memory(n_bytes: float, what: str, advice: str) -> None:
    """UserError if `what` needs more memory than there is; `advice` says which option to lower."""
    limit = memory_limit()
    if n_bytes > limit.n_bytes:
        raise UserError(
            f"{what} would need {gigabytes(n_bytes)} of memory, "
            f"{limit.source} {gigabytes(limit.n_bytes)}: {advice}"
        )


def gigabytes(n_bytes: float) -> str:
    """A number of bytes in GB.

    >>> gigabytes(3e9), gigabytes(2.5e6), gigabytes(1e30)
    ('3.0 GB', '0.0025 GB', '1e+21 GB')
    """
    size = n_bytes / 1e9
    return f"{size:.1f} GB" if 1 <= size < 1e6 else f"{size:.2g} GB"


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system has these
        return LARGEST_INT


def _of_control_group() -> Iterator[int]:
    """Limits of this process's control group and its parents, versions 1 and 2."""
    try:
        rows = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        rows = []
    for row in ["0::/", "0:memory:/", *rows]:
        _, controllers, path = row.split(":", 2)
        if "memory" in controllers.split(","):
            root, name = GROUPS / "memory", "memory.limit_in_bytes"
        elif not controllers:
            root, name = GROUPS, "memory.max"
        else:
            continue
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                continue
            if text.isdecimal():  # "max": none
                yield int(text)


def _address_space_left() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        used = 0
    return max(0, limit - used)
