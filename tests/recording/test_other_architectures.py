"""Names, axes and the order of what is recorded come from the model: of toys, nothing is as in TRM.

The toy model writes fast, fast, slow, fast, slow in each of two H-cycles and has one site inside an
evaluation; the toy task is the 3x3 Latin square.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import killed_collect
import numpy as np
import pytest
import torch
from killed_collect import assert_same_store, lives
from torch import Tensor
from toy_architecture import Toy, ToyConfig
from toy_task import Latin, latin_puzzles

import trm_interp.recording.collect
from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.core.clock import Schedule
from trm_interp.core.infer import run
from trm_interp.core.models import registry
from trm_interp.core.models.base import RecursiveModel
from trm_interp.recording.hooks import HookedModel, hook_names, hook_points, recording
from trm_interp.recording.info import describe
from trm_interp.recording.site_reader import SiteReader
from trm_interp.recording.sites import sites_of
from trm_interp.recording.store import Store, validate

Cli = Callable[..., Any]
N, STEPS, H, BATCH = 7, 3, 2, 2
CYCLE = ("fast", "fast", "slow", "fast", "slow")
SITE = "inner.hook_mixed"
CONFIG = ToyConfig(cells=9, vocab=5, d_model=28)  # states of a puzzle: 15 kB


@pytest.fixture
def toy() -> Toy:
    return Toy(CONFIG, torch.Generator().manual_seed(3)).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.from_numpy(latin_puzzles(N).inputs)


@torch.no_grad()
def followed(model: Toy, tokens: Tensor) -> dict[str, list[Tensor]]:
    """The run of a plain model, written out: states and the site, in the order of their values."""
    x = model.embedding[tokens.long()]
    slow, fast = (start.expand_as(x) for start in model.start)
    values: dict[str, list[Tensor]] = {"slow": [], "fast": [], SITE: [], "embed": [x]}
    for name in CYCLE * H * STEPS:
        net, h, injection = (
            (model.quick, fast, slow + x) if name == "fast" else (model.calm, slow, fast)
        )
        mixed = net.mix @ (h + injection)
        written = 0.5 * h + mixed @ net.map
        slow, fast = (slow, written) if name == "fast" else (written, fast)
        values[SITE].append(mixed)
        values[name].append(written)
    return values


# hook points


def test_names_of_hook_points_in_module_order():
    config = ToyConfig(cells=9, vocab=5, d_model=4, h_cycles=1, l_cycles=1)  # fast slow fast slow
    at = "step.0.h.0"
    assert hook_names(config, n_sup=1) == [
        "hook_embed",
        *(f"{at}.inner.hook_mixed", f"{at}.hook_slow"),
        *(f"{at}.l.0.inner.hook_mixed", f"{at}.l.0.hook_fast"),
        *(f"{at}.l.1.inner.hook_mixed", f"{at}.l.1.hook_slow"),
        *(f"{at}.l.2.inner.hook_mixed", f"{at}.l.2.hook_fast"),
        *("step.0.hook_logits", "step.0.hook_q_halt"),
    ]


def test_a_hooked_model_is_one_of_the_architecture(toy: Toy):
    hooked = HookedModel.of(toy, STEPS)
    assert isinstance(hooked, Toy) and isinstance(hooked, HookedModel)
    assert hooked.state_dict().keys() == toy.state_dict().keys()
    assert sorted(hook_names(toy, STEPS)) == sorted(hook_points(hooked))
    assert type(HookedModel.of(hooked, 1)) is type(hooked)
    from trm_interp.recording.hooks import HookedTRM

    assert issubclass(HookedTRM, HookedModel) and not isinstance(hooked, HookedTRM)


@torch.no_grad()
def test_every_hook_point_fires_once_with_the_value_of_a_plain_run(toy: Toy, tokens: Tensor):
    hooked, seen = HookedModel.of(toy, STEPS), []
    names = hook_names(CONFIG, STEPS)
    with recording(hooked, names, sink=lambda name, z: seen.append((name, z.clone()))):
        logits, q_halt, *_ = hooked(tokens)
    assert sorted(name for name, _ in seen) == sorted(names)
    expected = followed(toy, tokens)
    for site in ("fast", "slow"):
        values = [z for name, z in seen if name.endswith(f"hook_{site}")]
        for value, plain in zip(values, expected[site], strict=True):
            torch.testing.assert_close(value, plain)
    plain = run(toy, tokens, tokens, STEPS, keep_logits=True)
    assert plain.logits is not None and torch.equal(plain.logits, logits)
    assert torch.equal(plain.q_halt, q_halt)


@torch.no_grad()
def test_an_edit_changes_only_what_comes_later(toy: Toy, tokens: Tensor):
    hooked = HookedModel.of(toy, STEPS)
    ticks = CONFIG.schedule.ticks(STEPS)
    states = [tick.hook for tick in ticks]
    at = states.index("step.1.h.0.l.2.hook_slow")  # the first of the two writes of slow
    _, plain = hooked.run_with_cache(tokens, names_filter=states)
    with hooked.hooks(fwd_hooks=[(states[at], lambda z, hook: -z)]):
        _, edited = hooked.run_with_cache(tokens, names_filter=states)
    unchanged = [torch.equal(plain[name], edited[name]) for name in states]
    assert unchanged == [i < at for i in range(len(states))]


# stores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkpoint and a file of Latin squares."""
    folder = tmp_path_factory.mktemp("toy")
    toy = Toy(CONFIG, torch.Generator().manual_seed(3)).eval()
    save_checkpoint(folder / "checkpoint", toy, {"task": "latin3"})
    Latin.save(folder / "squares.txt", latin_puzzles(N))
    return folder


def words(folder: Path, out: Path, *more: object) -> list[object]:
    options = ["--ckpt", folder / "checkpoint", "--puzzles", folder / "squares.txt", "--out", out]
    return ["collect", *options, "--steps", STEPS, *more]


@pytest.fixture(scope="module")
def store(cli: Cli, folder: Path) -> Path:
    """All that can be recorded, in one batch as the plain run."""
    sites = f"states,{SITE},embed,logits"
    answer = cli(*words(folder, folder / "store", "--sites", sites, "--batch-size", N))
    assert answer.code == 0, answer.err
    return folder / "store"


def test_a_store_holds_each_state_and_site_of_an_unhooked_run(store: Path, toy: Toy):
    puzzles = latin_puzzles(N)
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    expected = followed(toy, inputs)
    assert validate(store) == []
    with Store(store) as opened:
        shapes = {"fast": (H, 3), "slow": (H, 2), SITE: (H, 5)}
        for name, cycles in shapes.items():
            assert opened[name].dims == ("puzzle", "step", "h_cycle", "l_cycle", "pos", "d_model")
            assert opened[name].shape == (N, STEPS, *cycles, 9, 28)
            plain = torch.stack(expected[name], 1).unflatten(1, (STEPS, *cycles)).half()
            np.testing.assert_allclose(opened[name][:], plain.numpy(), rtol=2e-3, atol=1e-4)
        embedded = expected["embed"][0].half().numpy()
        np.testing.assert_array_equal(opened["embed"][:], embedded)
        read = run(toy, inputs, labels, STEPS, keep_logits=True)
        assert read.logits is not None
        np.testing.assert_array_equal(opened["logits"][:], read.logits.half().numpy())
        np.testing.assert_array_equal(opened["q_halt"][:], read.q_halt.numpy())
        frame = opened.frame()
        assert len(frame) == N * STEPS
        assert frame.solved.tolist() == read.solved.flatten().tolist()


def test_a_store_says_which_architecture_and_task_it_is_of(store: Path):
    with Store(store) as opened:
        assert opened.recursion.architecture == "toy"
        assert (opened.states, opened.answer, opened.latent) == (("slow", "fast"), "slow", "fast")
        assert opened.schedule == Schedule(H, CYCLE) and opened.task == Latin()
        assert opened.names[:5] == ["fast", "slow", SITE, "embed", "logits"]


def test_ticks_lead_to_the_values_of_their_evaluation(store: Path):
    with Store(store) as opened:
        ticks = opened.schedule.ticks(STEPS)
        place = {  # index of the l_cycle axis of each evaluation of an H-cycle, by hand
            name: [0, 1, 0, 2, 1] if name != SITE else [0, 1, 2, 3, 4]
            for name in ("fast", "slow", SITE)
        }
        for name in ("fast", "slow", SITE):
            reader = SiteReader(opened, name)
            assert reader.ticks == [t for t in ticks if name == SITE or t.writes == name]
            for tick, value in zip(reader.ticks, reader.read(4), strict=True):
                at = (tick.step, tick.h_cycle, place[name][tick.l_cycle])
                np.testing.assert_array_equal(value, opened[name][4, *at])
                if name != SITE:
                    np.testing.assert_array_equal(opened.at(tick, 4), value)
                    np.testing.assert_array_equal(opened.at(tick)[4], value)


@pytest.mark.usefixtures("small_shards")
def test_killed_and_resumed_equals_undisturbed(cli: Cli, folder: Path, tmp_path: Path):
    options = words(folder, tmp_path / "whole", "--batch-size", BATCH)
    assert cli(*options).code == 0  # the sites are all states by default
    assert len(list((tmp_path / "whole").glob("shard-*.h5"))) == 4
    killed = words(folder, tmp_path / "killed", "--batch-size", BATCH)[1:]
    at = killed.index("--out")
    del killed[at : at + 2]
    ends = lives("SIGKILL", [9, 21], killed, tmp_path / "killed")
    assert [end["status"] for end in ends] == [-signal.SIGKILL] * 2
    with Store(tmp_path / "killed", allow_incomplete=True) as opened:
        assert 0 < opened.n_puzzles < N and opened.states == ("slow", "fast")
    assert cli(*words(folder, tmp_path / "killed", "--batch-size", BATCH, "--resume")).code == 0
    assert_same_store(tmp_path / "killed", tmp_path / "whole")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the child: shards of two puzzles."""
    monkeypatch.setattr(trm_interp.recording.collect, "plan_shards", killed_collect.small_shards())


def test_another_schedule_of_the_same_weights_is_another_run(
    cli: Cli, folder: Path, tmp_path: Path
):
    out = tmp_path / "store"
    assert cli(*words(folder, out)).code == 0
    toy = load_checkpoint(folder / "checkpoint").model
    longer = Toy(ToyConfig(cells=9, vocab=5, d_model=28, l_cycles=3))
    longer.load_state_dict(toy.state_dict())
    save_checkpoint(tmp_path / "checkpoint", longer, {"task": "latin3"})
    answer = cli(*words(tmp_path, out, "--resume", "--puzzles", folder / "squares.txt"))
    assert answer.code == 2 and "is of another run" in answer.err and "l_cycles" in answer.err


def test_sites_are_those_of_the_architecture():
    assert [site.name for site in sites_of(CONFIG, "states", 2)] == ["fast", "slow"]
    message = f"no site 'resid'; there are states, fast, slow, embed, logits, {SITE}$"
    with pytest.raises(ValueError, match=message):
        sites_of(CONFIG, "resid", 2)
    with pytest.raises(ValueError, match="no site 'z_L'; there are states, fast, slow"):
        sites_of(CONFIG, "fast,z_L", 2)


def test_the_commands_name_what_there_is(cli: Cli, folder: Path, tmp_path: Path):
    answer = cli(*words(folder, tmp_path / "store", "--sites", "z_L"))
    assert answer.code == 2 and "no site 'z_L'; there are states, fast, slow" in answer.err
    assert not (tmp_path / "store").exists()
    answer = cli("hooks", "--ckpt", folder / "checkpoint", "--steps", 1)
    assert answer.out.splitlines() == hook_names(CONFIG, 1)


@pytest.mark.parametrize("name", ["checkpoint", "store"])
def test_info_says_architecture_states_schedule_and_task(
    cli: Cli, folder: Path, store: Path, name: str
):
    facts = describe(str(folder / name))
    expected = {"architecture": "toy", "task": "latin3", "states": ["slow", "fast"]}
    expected |= {"answer": "slow", "latent": "fast", "evaluations_per_step": H * 5}
    expected |= {"schedule": {"h_cycles": H, "cycle": list(CYCLE)}}
    assert {key: facts[key] for key in expected} == expected
    assert json.loads(cli("info", folder / name, "--json").out)["states"] == ["slow", "fast"]
    lines = cli("info", folder / name).out.splitlines()
    assert "architecture: toy" in lines and f"schedule: {H} H-cycles of {' '.join(CYCLE)}" in lines


# an evaluation that ends its H-cycle alone, and a state that is never written


class OneConfig(ToyConfig):
    architecture: ClassVar[str] = "one"

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        return Schedule(depth[0], ("slow",))


class One(Toy):
    """A toy that only ever writes its answer state, once an H-cycle."""

    architecture = "one"
    Config = OneConfig
    answer = latent = "slow"


def test_one_evaluation_per_cycle_has_no_l_cycle(
    cli: Cli, tmp_path: Path, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # for this test alone
    registry.register_model(One)
    config = OneConfig(cells=9, vocab=5, d_model=4)
    model: RecursiveModel = One(config, torch.Generator().manual_seed(3))
    assert hook_names(config, 1)[1:5] == [
        *("step.0.h.0.inner.hook_mixed", "step.0.h.0.hook_slow"),
        *("step.0.h.1.inner.hook_mixed", "step.0.h.1.hook_slow"),
    ]
    slow, inside = sites_of(config, f"states,{SITE}", STEPS)
    assert (slow.name, slow.dims) == ("slow", ("step", "h_cycle", "pos", "d_model"))
    assert slow.shape == (STEPS, H, 9, 4) and inside.shape == (STEPS, H, 1, 9, 4)
    with pytest.raises(ValueError, match="no site 'fast'"):
        sites_of(config, "fast", STEPS)
    save_checkpoint(tmp_path / "checkpoint", model, {"task": "latin3"})
    Latin.save(tmp_path / "squares.txt", latin_puzzles(N))
    options = ["--batch-size", N, "--sites", f"states,{SITE}"]
    assert cli(*words(tmp_path, tmp_path / "store", *options)).code == 0
    hooked = HookedModel.of(model, STEPS)
    _, cache = hooked.run_with_cache(tokens, names_filter=lambda name: name.endswith("slow"))
    with Store(tmp_path / "store") as opened:
        assert opened.latent == opened.answer == "slow"
        ticks = opened.schedule.ticks(STEPS)
        assert len(cache) == len(ticks) == STEPS * H
        values = SiteReader(opened, "slow").read(5), SiteReader(opened, SITE).read(5)
        assert [len(rows) for rows in values] == [len(ticks), len(ticks)]
        for tick, value in zip(ticks, values[0], strict=True):
            np.testing.assert_array_equal(value, cache[tick.hook][5].half().numpy())
            np.testing.assert_array_equal(value, opened.at(tick, 5))
