"""The network against two outside references, then the laws it obeys."""

import json
import math
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.clock import schedule
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.recording.hooks import HookedTRM, recording

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT.parent / "shared" / "golden"  # what the public implementation computes
GOLDEN = Path(__file__).parent / "golden"
RESTATED = np.load(GOLDEN / "restated.npz")
CASES = sorted({name.split("/")[0] for name in RESTATED.files})
restate = runpy.run_path(str(GOLDEN / "make_golden.py"))["run"]


def assert_near(actual: Any, expected: Any, atol: float) -> None:
    torch.testing.assert_close(
        torch.as_tensor(actual).double(), torch.as_tensor(expected).double(), atol=atol, rtol=0
    )


# parity


@pytest.fixture(params=["mlp_h32", "att_h32"])
def public(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TRM, Any]:
    """A model read through the public file format, and the values of the public code."""
    source = PUBLIC / request.param
    if not source.with_suffix(".npz").exists():
        pytest.skip(f"no {source}.npz: the public values lie outside the repository")
    state = load_file(source.with_suffix(".safetensors"))
    torch.save({f"_orig_mod.model.{k}": v for k, v in state.items()}, tmp_path / "step_0")
    arch = source.with_suffix(".json").read_text()
    (tmp_path / "all_config.yaml").write_text(f"arch: {arch}\nglobal_batch_size: 4\n")
    return load_checkpoint(tmp_path).model, np.load(source.with_suffix(".npz"))


@torch.no_grad()
def test_sixteen_steps_equal_the_public_code(public: tuple[TRM, Any]):
    model, golden = public
    x = model.embed(torch.from_numpy(golden["inputs"]))
    state, kept = model.initial_state(x), golden["steps"].tolist()
    for step in range(16):
        state, _ = model.advance(state, x, step)
        logits, q_halt, *_ = model.readout(state.z_H)
        assert_near(q_halt, golden["q_halt"][step], 1e-4)
        if step in kept:
            i = kept.index(step)
            assert_near(state.z_H, golden["z_H"][i], 1e-4)
            assert_near(state.z_L, golden["z_L"][i], 1e-4)
            assert_near(logits, golden["logits"][i], 1e-4)


@torch.no_grad()
def test_recorded_ticks_equal_the_public_code_in_clock_order(public: tuple[TRM, Any]):
    model, golden = public
    hooked, seen = HookedTRM.of(model, n_sup=1), {}
    names = [tick.hook for tick in schedule(1, 3, 6)]
    with recording(hooked, names, sink=lambda name, z: seen.update({name: z.clone()})):
        hooked(torch.from_numpy(golden["inputs"][:1]))
    assert list(seen) == names
    assert_near(torch.stack(list(seen.values())), golden["step1_ticks"], 1e-4)


def test_the_restatement_equals_the_public_code(public: tuple[TRM, Any]):
    model, golden = public
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    values = restate(weights, golden["inputs"][:1], vars(model.config), steps=4)
    assert_near(values["ticks"][:21], golden["step1_ticks"], 1e-4)
    assert_near(values["z_H"][3], golden["z_H"][2][:1], 1e-4)


def restated(case: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Settings, weights and values of one case of our own file."""
    parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "values": {}}
    for name in RESTATED.files:
        if name.startswith(f"{case}/") and name.count("/") == 2:
            _, kind, key = name.split("/")
            parts[kind][key] = RESTATED[name]
    return json.loads(str(RESTATED[f"{case}/config"])), parts["weights"], parts["values"]


@pytest.mark.parametrize("case", CASES)
def test_the_file_holds_what_the_restatement_computes(case: str):
    config, weights, values = restated(case)
    again = restate(weights, RESTATED[f"{case}/inputs"], config, steps=3)
    ticks = config["h_cycles"] * (config["l_cycles"] + 1)
    assert_near(again["ticks"][:ticks, :1], values["ticks"], 1e-6)
    for name in ("z_H", "z_L", "logits", "q_halt"):
        assert_near(again[name], values[name], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_model_equals_the_restatement(case: str):
    config, weights, values = restated(case)
    model = HookedTRM(TRMConfig(**config), n_sup=3)
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    tokens = torch.from_numpy(RESTATED[f"{case}/inputs"])
    x = model.embed(tokens)
    state = model.initial_state(x)
    for step in range(3):
        state, _ = model.advance(state, x, step)
        logits, q_halt, *_ = model.readout(state.z_H, step)
        assert_near(state.z_H, values["z_H"][step], 2e-5)
        assert_near(state.z_L, values["z_L"][step], 2e-5)
        assert_near(logits, values["logits"][step], 2e-5)
        assert_near(q_halt, values["q_halt"][step], 2e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_every_tick_equals_the_restatement(case: str):
    config, weights, values = restated(case)
    model = HookedTRM(TRMConfig(**config), n_sup=1)
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    seen: list[torch.Tensor] = []
    names = [tick.hook for tick in schedule(1, config["h_cycles"], config["l_cycles"])]
    with recording(model, names, sink=lambda name, z: seen.append(z.clone())):
        model(torch.from_numpy(RESTATED[f"{case}/inputs"][:1]))
    assert_near(torch.stack(seen), values["ticks"], 1e-5)


# the model


def test_published_sizes():
    # MLP: blocks 2 x (97 * 3 * 512 + 512 * 3 * 1536) = 5 016 576; the token and head matrices
    # 2 x 11 * 512 = 11 264; halting head 2 * 512 + 2; prefix 512
    def size(**settings: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in TRM(TRMConfig(**settings)).parameters())

    assert size() == 2 * (97 * 3 * 512 + 512 * 3 * 1536) + 11_264 + 1_026 + 512 == 5_029_378
    # attention: 512 * (3 * 512) + 512 * 512 in place of the mixer
    assert size(mixer="attention") == 2 * (4 * 512**2 + 512 * 3 * 1536) + 11_264 + 1_026 + 512
    assert size(mixer="attention") == 6_828_546
    assert size(prefix=0) == 2 * (81 * 3 * 256 + 512 * 3 * 1536) + 11_264 + 1_026


@torch.no_grad()
def test_states_have_rms_one_at_every_position(tiny_trm: TRM, puzzles: Any):
    x = tiny_trm.embed(puzzles[0])
    state, per_cycle = tiny_trm.advance(tiny_trm.initial_state(x), x)
    for z in (*state, *per_cycle):
        rms = z.square().mean(-1).sqrt()
        # exactly 1 / sqrt(1 + eps / u) for an input of mean square u, so a little below 1
        torch.testing.assert_close(rms, torch.ones_like(rms), atol=1e-3, rtol=0)
        assert (rms <= 1 + 1e-6).all()


def test_prefix_is_zero_but_for_its_first_position(puzzles: Any):
    model = TRM(TRMConfig(cells=16, vocab=6, d_model=8, prefix=4, multiple=8))
    with torch.no_grad():
        assert model.prefix_embedding is not None
        model.prefix_embedding.fill_(1.0)
    x = model.embed(puzzles[0])
    assert x.shape == (5, 4 + 16, 8)
    torch.testing.assert_close(x[:, 0], torch.full((5, 8), math.sqrt(8)))
    assert (x[:, 1:4] == 0).all()
    torch.testing.assert_close(x[:, 4:], math.sqrt(8) * model.token_embedding[puzzles[0]])


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_logits_are_of_the_cells_and_halting_of_the_first_position(prefix: int):
    model = TRM(TRMConfig(cells=4, vocab=6, d_model=8, prefix=prefix, multiple=8))
    torch.nn.init.ones_(model.q_head.weight)
    z_H = torch.randn(2, prefix + 4, 8, generator=torch.Generator().manual_seed(0))
    logits, q_halt, *_ = model.readout(z_H)
    torch.testing.assert_close(logits[:, 2], z_H[:, prefix + 2] @ model.lm_head.weight.T)
    torch.testing.assert_close(q_halt, z_H[:, 0].sum(-1) - 5)  # bias -5


def test_fresh_weights_have_the_stated_deviation_after_the_cut():
    model = TRM(TRMConfig(d_model=128, prefix=0), torch.Generator().manual_seed(0))
    checked = 0
    for name, weight in model.named_parameters():
        if name in ("q_head.weight", "q_head.bias"):
            continue
        std = 1 / math.sqrt(weight.shape[1])  # fan-in; the embedding's last axis is d_model
        # a deviation from n draws is off by about std / sqrt(2 n); 4 of those
        assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel()))
        # cut at 2 deviations of the normal before the cut, which is 1 / 0.8796 as wide
        assert weight.abs().max().item() <= 2 * std / 0.8796256 * 1.0001
        checked += 1
    assert checked == 2 * 4 + 2
    assert (model.q_head.weight == 0).all() and (model.q_head.bias == -5).all()
    assert model.z_H_init.std().item() == pytest.approx(1, rel=4 / math.sqrt(2 * 128))
    assert not torch.equal(model.z_H_init, model.z_L_init)
    assert {name for name, _ in model.named_buffers()} == {"z_H_init", "z_L_init"}


def test_same_generator_same_weights():
    config = TRMConfig(cells=16, vocab=6, d_model=8, multiple=8)
    one, two = (TRM(config, torch.Generator().manual_seed(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_first_cycles_get_no_gradient(tiny_trm: TRM, puzzles: Any):
    """The gradient in training is that of the last H-cycle, the first ones' states constants."""
    generator = torch.Generator().manual_seed(3)
    shape = (5, tiny_trm.config.positions, 8)
    start = [torch.randn(shape, generator=generator) for _ in range(2)]
    target = torch.randn((5, 16, 6), generator=generator)
    State = type(tiny_trm.initial_state(tiny_trm.embed(puzzles[0])))

    def gradients(logits: torch.Tensor, q_halt: torch.Tensor) -> list[torch.Tensor]:
        loss = (logits * target).sum() + q_halt.square().sum()
        return list(torch.autograd.grad(loss, list(tiny_trm.parameters())))

    _, readout = tiny_trm(State(*start), puzzles[0])
    trained = gradients(readout.logits, readout.q_halt)

    x = tiny_trm.embed(puzzles[0])
    z_H, z_L = start
    with torch.no_grad():  # H-cycle 0
        for _ in range(2):
            z_L = tiny_trm.net(z_L, z_H + x)
        z_H = tiny_trm.net(z_H, z_L)
    for _ in range(2):
        z_L = tiny_trm.net(z_L, z_H + x)
    z_H = tiny_trm.net(z_H, z_L)
    by_hand = gradients(*tiny_trm.readout(z_H)[:2])
    for one, other in zip(trained, by_hand, strict=True):
        torch.testing.assert_close(one, other)

    state, _ = tiny_trm.advance(State(*start), tiny_trm.embed(puzzles[0]))
    whole = gradients(*tiny_trm.readout(state.z_H)[:2])
    assert not torch.allclose(trained[0], whole[0], rtol=1e-3)  # the law above has teeth


def test_step_only_names_and_depth_sets_the_cycles(tiny_trm: TRM, puzzles: Any):
    x = tiny_trm.embed(puzzles[0])
    start = tiny_trm.initial_state(x)
    (one, cycles), (other, _) = tiny_trm.advance(start, x, 0), tiny_trm.advance(start, x, 7)
    assert torch.equal(one.z_H, other.z_H) and len(cycles) == 2
    shallow, cycles = tiny_trm.advance(start, x, depth=(1, 2))
    assert len(cycles) == 1 and torch.equal(shallow.z_H, cycles[0])
    assert torch.equal(tiny_trm.advance(start, x)[1][0], shallow.z_H)  # the first of two cycles


@torch.no_grad()
def test_bfloat16_stays_close_for_one_step(tiny_trm: TRM, puzzles: Any):
    states = []
    for dtype in (torch.float32, torch.bfloat16):
        x = tiny_trm.embed(puzzles[0], dtype)
        state, _ = tiny_trm.advance(tiny_trm.initial_state(x), x)
        assert state.z_H.dtype == dtype
        logits, q_halt, *_ = tiny_trm.readout(state.z_H)
        assert logits.dtype == q_halt.dtype == torch.float32
        states.append(state.z_H.float())
    # 8 bits of significand: each of 6 evaluations rounds states of size 1 by about 2^-8
    assert (states[0] - states[1]).square().mean().sqrt() < 0.1
    assert not torch.equal(*states)


@torch.no_grad()
@pytest.mark.skipif(not shutil.which("c++") and not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_equals_eager_one_step_at_a_time(tiny_mlp: TRM, puzzles: Any):
    """From the same states each time: over whole runs the recursion amplifies rounding."""
    config = replace(tiny_mlp.config, n_layers=1)
    tiny_mlp = TRM(config)
    compiled = TRM(config)
    compiled.load_state_dict(tiny_mlp.state_dict())
    checked = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        compiled.net.compile(fullgraph=True)
        x = tiny_mlp.embed(puzzles[0])
        state = tiny_mlp.initial_state(x)
        for step in range(3):
            ours, _ = compiled.advance(state, x, step)
            state, _ = tiny_mlp.advance(state, x, step)
            for one, other in zip(ours, state, strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)


def test_shape_annotations_are_checked(tiny_mlp: TRM):
    with pytest.raises(jaxtyping.TypeCheckError):
        tiny_mlp.embed(torch.zeros(2, 3, 16, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError):
        tiny_mlp.readout(torch.zeros(18, 8))


def test_gradients_of_one_evaluation_in_float64(tiny_trm: TRM):
    """Against central differences, through mixer, SwiGLU and both norms."""
    generator = torch.Generator().manual_seed(2)
    shape = (1, tiny_trm.config.positions, 8)
    h, injection = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    h.requires_grad_()
    assert torch.autograd.gradcheck(lambda h: tiny_trm.net(h, injection)[:, ::5], (h,))
