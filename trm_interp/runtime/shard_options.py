"""The option that does a part of a command's work. Read by the command line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trm_interp.runtime.settings import setting

MOST = 10_000  # shards of a whole
SHARD_HELP = (
    "do only part i of n, such as 2/8 (parts are 1/8 to 8/8), and write it to the folder --out; "
    "`trm-interp merge` joins the parts"
)
RESUME_HELP = "go on with an unfinished shard"
OUT_HELP = "folder of the shard"


class Shard(NamedTuple):
    """Part `number`, from 1, of `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """ValueError unless it is one.

        >>> Shard.parse("2/8")
        Shard(number=2, of=8)
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST:
            raise ValueError(
                f"shard must be i/n, the parts being 1/n to n/n, such as 2/8, got {text[:40]!r}"
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """A part of a command's work instead of the whole. The fields beside `shard` are offered where
    the command has no such option itself."""

    shard: str | None = setting(None, SHARD_HELP, metavar="I/N", otherwise="the whole")
    resume: bool = setting(False, RESUME_HELP, needs={"shard": True})
    out: Path | None = setting(None, OUT_HELP, otherwise="none", needs={"shard": True})
    overwrite: bool = setting(False, "replace an existing shard", needs={"shard": True})

    def __post_init__(self) -> None:
        if self.shard is not None:
            Shard.parse(self.shard)
        elif self.out is not None:
            raise ValueError("out is the folder of a shard: give --shard i/n with it")
