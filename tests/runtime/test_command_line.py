"""The line that is said to have made a folder."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.settings import argument, command_line, setting


@dataclass(frozen=True, kw_only=True)
class OfTwo:
    sae: Path = argument("an SAE")
    store: Path = argument("a store")
    top: int = setting(10, "features")


def test_arguments_come_first_in_their_order():
    given = OfTwo(sae=Path("a b"), store=Path("s"), top=3)
    assert command_line("features", given) == "trm-interp features 'a b' s --top 3"
    assert command_line("features", OfTwo(sae=Path("a"), store=Path("s"))).endswith("features a s")
