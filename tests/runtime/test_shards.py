"""What the pieces of a shard depend on."""

from pathlib import Path

import pytest

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shard_options import Shard
from trm_interp.runtime.shards import PIECES, OneShard


def shard(folder: Path) -> OneShard:
    (folder / PIECES).mkdir(exist_ok=True)
    return OneShard(folder, Shard(1, 2), print)


def test_a_shard_that_was_stopped_before_its_last_fact_goes_on(tmp_path: Path):
    """A command may open its second checkpoint when it is done with the first one."""
    shard(tmp_path).note({"checkpoint a": "1", "device": "cpu"})
    again = shard(tmp_path)
    again.note({"checkpoint a": "1", "device": "cpu"})
    again.note({"checkpoint b": "2", "device": "cpu"})
    once_more = shard(tmp_path)
    once_more.note({"checkpoint a": "1", "device": "cpu"})
    once_more.note({"checkpoint b": "2", "device": "cpu"})
    assert once_more.facts == {"checkpoint a": "1", "device": "cpu", "checkpoint b": "2"}
    with pytest.raises(UserError, match=r"checkpoint b \('2' there, '3' now\)"):
        once_more.note({"checkpoint b": "3"})


@pytest.mark.parametrize("now", [{"checkpoint a": "2"}, {"checkpoint c": "1"}])
def test_facts_of_another_whole_are_refused(tmp_path: Path, now: dict[str, str]):
    """Another file, or one at another place."""
    shard(tmp_path).note({"checkpoint a": "1", "device": "cpu"})
    with pytest.raises(UserError, match=f"is of another run: {next(iter(now))}"):
        shard(tmp_path).note(now | {"device": "cpu"})
