"""The examples of docs/patching.md run as they stand, and show what they say."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "patching.md").read_text(), re.DOTALL
)


def test_every_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for example in EXAMPLES:
        exec(example, names)
    assert len(EXAMPLES) == 7 and capsys.readouterr().out.count("\n") >= 5
    base, other = names["base"], names["other"]
    assert not torch.equal(base.before[0].z_H, other.before[0].z_H)
    assert names["effects"].change("loss").abs().max() > 0
    assert names["ablated"].change("cells").mean() < 0  # without the MLP less is right
    assert names["cut"].change("loss").abs().max() > 0
    swapped, asked = names["swapped"].tokens[0], base.readouts.tokens[:, -1]
    assert (swapped != asked).any()
    blanks = names["blanks"][:, names["model"].config.prefix :]
    before, after = ((tokens == 2)[blanks].sum() for tokens in (asked, names["steered"].tokens[0]))
    assert after > 2 * before  # more blanks are answered with a 1
    assert len(names["exact"]) == 20 and len(names["estimates"]) == 2 + 6 * 21
