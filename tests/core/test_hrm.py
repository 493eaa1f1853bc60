"""HRM: what a restatement computes, public files, gradient, losses. Public values: test_zoo.py."""

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import CheckpointError, load_checkpoint
from trm_interp.core.infer import run
from trm_interp.core.models.base import Readout
from trm_interp.core.models.hrm import HRM, worth_of_continuing
from trm_interp.core.models.hrm_config import HRMConfig
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import Slots, TrainData
from trm_interp.core.training.trainer import Trainer
from trm_interp.recording.hooks import HookedModel

GOLDEN = Path(__file__).parent / "golden"
RESTATED = np.load(GOLDEN / "restated_hrm.npz")
RESTATEMENT = runpy.run_path(str(GOLDEN / "make_hrm.py"))
CASES = ("rotary", "learned", "three_cycles")
WRAPPER = "_orig_mod.model.inner."


def of_case(case: str, kind: str) -> dict[str, np.ndarray]:
    start = f"{case}/{kind}/"
    return {name.removeprefix(start): RESTATED[name] for name in RESTATED if name.startswith(start)}


def written(folder: Path, case: str, **arch: Any) -> Path:
    """A public checkpoint of the weights of this case, with its settings beside it."""
    config = json.loads(str(RESTATED[f"{case}/config"]))
    weights = {WRAPPER + name: torch.from_numpy(w) for name, w in of_case(case, "weights").items()}
    torch.save(weights, folder / "checkpoint")
    settings: dict[str, Any] = {
        "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
        "H_cycles": config["h_cycles"],
        "L_cycles": config["l_cycles"],
        "H_layers": config["n_layers"],
        "L_layers": config["n_layers"],
        "num_heads": config["n_heads"],
        "expansion": config["expansion"],
        "pos_encodings": {"rotary": "rope"}.get(config["positions"], config["positions"]),
        "seq_len": config["cells"],
    }
    arch = {name: value for name, value in (settings | arch).items() if value is not None}
    (folder / "all_config.yaml").write_text(json.dumps({"arch": arch}))  # JSON is YAML
    return folder


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def test_equals_the_restatement(case: str, tmp_path: Path):
    model = load_checkpoint(written(tmp_path, case)).model
    inputs = torch.from_numpy(RESTATED[f"{case}/inputs"])
    identifiers = torch.from_numpy(RESTATED[f"{case}/identifiers"]).long()
    values = of_case(case, "values")
    x = model.embed(inputs, identifiers=identifiers)
    state = model.initial_state(x)
    for step in range(len(values["z_H"])):
        state, _ = model.advance(state, x, step)
        read = model.readout(state.z_H)
        assert read.q_continue is not None
        for name, value in {**state._asdict(), **read._asdict()}.items():
            if name != "further":
                assert_near(value, values[name][step])
    hooked = HookedModel.of(model, 1)
    _, cache = hooked.run_with_cache(inputs[:1], identifiers=identifiers[:1])
    ticks = torch.stack([cache[tick.hook] for tick in model.config.schedule.ticks()])
    assert_near(ticks, values["ticks"])


def test_the_golden_file_is_what_the_restatement_computes(case: str):
    config = json.loads(str(RESTATED[f"{case}/config"]))
    inputs, identifiers = RESTATED[f"{case}/inputs"], RESTATED[f"{case}/identifiers"]
    values = RESTATEMENT["run"](of_case(case, "weights"), inputs, identifiers, config, 3)
    for name in ("z_H", "z_L", "logits", "q_halt", "q_continue"):
        np.testing.assert_allclose(values[name], of_case(case, "values")[name], atol=1e-6)


def assert_near(value: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(value, torch.from_numpy(expected), rtol=0, atol=1e-4)


# files


def test_a_public_file_tells_what_it_can(tmp_path: Path):
    loaded = load_checkpoint(written(tmp_path, "learned", name=None, seq_len=None))
    config = loaded.model.config
    assert loaded.format == "HRM" and loaded.path.name == "checkpoint"
    assert (config.cells, config.prefix, config.puzzle_dims) == (9, 2, 12)
    assert (config.n_identifiers, config.position_encoding) == (3, "learned")
    assert (config.n_layers, config.n_heads, config.h_cycles, config.l_cycles) == (2, 2, 2, 2)


def test_rotary_positions_leave_the_cells_open(tmp_path: Path):
    folder = written(tmp_path, "rotary", seq_len=None)
    with pytest.raises(CheckpointError, match="number of cells: give --puzzles or --cells"):
        load_checkpoint(folder)
    assert load_checkpoint(folder, cells=9).model.config.cells == 9
    (folder / "dataset.json").write_text(json.dumps({"seq_len": 16, "vocab_size": 5}))
    assert load_checkpoint(folder).model.config.cells == 16


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"H_level.layers.1": None}, "H_level.layers.1 is missing, of 2 layers of this HRM"),
        ({"H_level": None}, "H_level.layers.0 is missing, of 2 layers of this HRM"),
        (
            {"H_level.layers.1": None, "L_level.layers.1": None},
            "1 layers in the file, but its settings state L_layers 2",
        ),
        ({"L_level.layers.0.self_attn.o_proj": None}, "lacks net.blocks.0.mixer.out.weight"),
        (
            {"encoder.weight": torch.zeros(2)},
            "unknown tensor .*encoder.weight; is this a checkpoint of HRM",
        ),
        ({"q_head.weight": torch.zeros(1, 8)}, "q_head.weight has shape \\[1, 8\\]"),
        ({"embed_pos.embedding_weight": torch.zeros(10, 8)}, "settings state pos_encodings 'rope'"),
        ({"H_init": None}, "lacks z_H_init"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, change: dict[str, Any], says: str):
    folder = written(tmp_path, "rotary")
    state = torch.load(folder / "checkpoint")
    for name, value in change.items():
        if value is None:
            for key in [key for key in state if key.startswith(WRAPPER + name)]:
                del state[key]
        else:
            state[WRAPPER + name] = value
    torch.save(state, folder / "checkpoint")
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_not_read_is_named(tmp_path: Path):
    name = "hrm.hrm_act_v2@HierarchicalReasoningModel_ACTV2"
    says = f"arch.name is '{name}'; of public networks this version has trm, hrm_act_v1"
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(written(tmp_path, "rotary", name=name))


def test_an_architecture_that_cannot_be_told_is_asked_for(tmp_path: Path):
    """Neither named nor shown by its stacks of blocks, of which there is a strange one."""
    folder = written(tmp_path, "rotary", name=None)
    state = torch.load(folder / "checkpoint")
    strange = {key.replace("H_level", "M_level"): value for key, value in state.items()}
    torch.save(strange, folder / "checkpoint")
    says = "all_config.yaml states no arch.name, .* blocks L_level, M_level .* of trm, hrm_act_v1, "
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_prefix_that_the_embedding_does_not_fill():
    config = HRMConfig(d_model=32, n_heads=4, prefix=2, puzzle_dims=40)
    assert config.prefix_width == 40 and config.positions == 83
    with pytest.raises(ValueError, match="puzzle_dims 40 fill 2 positions of 32, but prefix is 1"):
        HRMConfig(d_model=32, n_heads=4, puzzle_dims=40)


# training

TINY = HRMConfig(cells=16, vocab=6, d_model=8, n_heads=2, multiple=8, n_layers=1)


@pytest.fixture
def hrm() -> HRM:
    generator = torch.Generator().manual_seed(0)
    model = HRM(TINY, generator)
    torch.nn.init.normal_(model.q_head.weight, generator=generator)
    return model


def test_gradient_is_that_of_the_last_evaluation_of_each_network(
    hrm: HRM, puzzles: tuple[Tensor, Tensor]
):
    """By hand: everything before the last L and the last H is a constant."""
    tokens = puzzles[0]
    state, read = hrm(hrm.initial_state(hrm.embed(tokens)), tokens)
    assert read.q_continue is not None
    total = read.logits.square().sum() + read.q_halt.sum() + read.q_continue.sum()
    got = torch.autograd.grad(total, list(hrm.parameters()), allow_unused=True)

    x = hrm.embed(tokens)
    z_H, z_L = hrm.initial_state(x)
    with torch.no_grad():
        z_L = hrm.net(z_L, z_H + x)
        z_L = hrm.net(z_L, z_H + x)
        z_H = hrm.net_H(z_H, z_L)
        z_L = hrm.net(z_L, z_H + x)
    z_L = hrm.net(z_L, z_H + x)
    z_H = hrm.net_H(z_H, z_L)
    assert torch.equal(z_H, state.z_H)
    by_hand = hrm.readout(z_H)
    assert by_hand.q_continue is not None
    total = by_hand.logits.square().sum() + by_hand.q_halt.sum() + by_hand.q_continue.sum()
    expected = torch.autograd.grad(total, list(hrm.parameters()), allow_unused=True)
    for one, other in zip(got, expected, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)
    assert hrm.evaluations_with_gradient(TINY) == 2


def test_the_losses_by_hand(hrm: HRM):
    """Going on is worth 0.8, the better of 0.6 and 0.8 a step later; at the last step 0.6."""

    def logits_of(*probabilities: float) -> Tensor:
        return torch.tensor(probabilities).logit()

    labels = torch.tensor([[1], [2]])
    logits = torch.tensor([[[-9.0, 1.0, -1.0]], [[-9.0, 1.0, -1.0]]])
    later = logits_of(0.6, 0.6), logits_of(0.8, 0.8)
    last = torch.tensor([False, True])
    torch.testing.assert_close(worth_of_continuing(*later, last), torch.tensor([0.8, 0.6]))
    read, following = (
        Readout(logits, logits_of(0.9, 0.9), logits_of(0.7, 0.7)),
        Readout(logits, *later),
    )
    losses = hrm.losses(read, labels, last=last, following=following)
    # s(1) = 2, s(-1) = 1/2, s(-9) = 1/10: together 2.6
    expected = torch.tensor([math.log(2.6 / 2), math.log(2.6 / 0.5)], dtype=torch.float64)
    torch.testing.assert_close(losses.answer, expected)
    assert losses.solved.tolist() == [True, False]
    go_on = [-(worth * math.log(0.7) + (1 - worth) * math.log(0.3)) for worth in (0.8, 0.6)]
    expected = torch.tensor([-math.log(0.9) + go_on[0], -math.log(0.1) + go_on[1]])
    torch.testing.assert_close(losses.halt, expected)
    with pytest.raises(ValueError, match="one supervision step later"):
        hrm.losses(read, labels)


def test_training_is_one_half_of_both_halting_losses(hrm: HRM, data: TrainData, tmp_path: Path):
    """The gradient of answer + 0.5 (BCE_halt + BCE_continue), the target from a second forward."""
    config = TrainConfig(batch_size=5, n_sup=3, clip=0.0, explore=0.0, warmup=0.0)
    trainer = Trainer(TINY, config, data, tmp_path / "run")
    model: Any = trainer.model
    torch.nn.init.normal_(model.q_head.weight, generator=torch.Generator().manual_seed(1))
    slots = trainer.slots.refilled(model, data, config.seed, config.augment)
    state, read = model(slots.states, slots.inputs)
    with torch.no_grad():
        _, later = model(HRM.State(*(z.detach() for z in state)), slots.inputs)
        worth = torch.maximum(later.q_halt, later.q_continue).sigmoid()  # not the last of 3
    losses = model.losses(read, slots.labels, last=slots.steps > 9, following=later)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    halting = bce(read.q_halt, losses.solved.float()) + bce(read.q_continue, worth)
    grads = torch.autograd.grad(losses.answer.mean() + 0.5 * halting, list(model.parameters()))
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    torch.testing.assert_close(trainer.step()["grad_norm"], norm)


def test_slots_halt_where_halting_is_worth_more_and_not_before_their_minimum(data: TrainData):
    model = HRM(TINY, torch.Generator().manual_seed(0))
    slots = Slots.empty(model, data, torch.arange(400), torch.float32)
    read = Readout(torch.zeros(400, 16, 6), torch.ones(400), torch.tensor([0.5, 1.5] * 200))
    halts = model.halts(read)
    config = TrainConfig(explore=0.1)
    steps_to_halt = torch.zeros(400)
    for step in range(16):
        slots = slots.advanced(slots.states, halts, step, config, 16)
        steps_to_halt = torch.where(slots.halted & (steps_to_halt == 0), step + 1, steps_to_halt)
    assert (steps_to_halt[1::2] == 16).all()  # q_continue is larger: to the end
    early = steps_to_halt[::2]
    assert (early == 1).float().mean() > 0.8 and early.max() > 1


def test_a_whole_run_records_both_logits(hrm: HRM, puzzles: tuple[Tensor, Tensor]):
    read = run(hrm, *puzzles, steps=3)
    assert read.q_continue is not None and read.q_continue.shape == (len(puzzles[0]), 3)
    assert torch.equal(read.halts, read.q_halt > read.q_continue)
