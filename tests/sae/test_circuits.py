"""A planted circuit: one feature drives another through a linear recursion, by a known weight."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from toy_copier import CONFIG, EVALUATIONS, save_squares, squares, toy_copier
from toy_task import Latin

from trm_interp.core.checkpoints.folder import load_checkpoint, save_checkpoint
from trm_interp.runtime.errors import UserError
from trm_interp.sae.circuit_tables import controls_of
from trm_interp.sae.circuits import lines
from trm_interp.sae.edges import Edges
from trm_interp.sae.graphs import node_id
from trm_interp.sae.results import CircuitsSummary

Cli = Callable[..., Any]
CYCLE = ("fast", "fast", "slow", "fast", "slow")
STEPS, KEEP, COPY, PLANTED = 3, 0.5, 0.3, 0.2
SOURCE, TARGET = 2, 4  # channels of two tokens, one feature each
ABOUT = "<b>sae"


@pytest.fixture(scope="module")
def made(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and an SAE of `fast` whose feature c is what is positive in channel c.

    In both networks of the model channel SOURCE also writes into channel TARGET.
    """
    folder = tmp_path_factory.mktemp("planted")
    model = toy_copier()
    with torch.no_grad():
        for net in (model.quick, model.calm):
            net.map[SOURCE, TARGET] = PLANTED
    ckpt = folder / "toy"
    save_checkpoint(ckpt, model, {"task": Latin().name})
    puzzles, store = save_squares(folder / "squares.txt"), folder / "store"
    words = ["--ckpt", ckpt, "--puzzles", puzzles, "--out", store, "--steps", STEPS]
    answer = cli("collect", *words, "--device", "cpu")
    assert answer.code == 0, answer.err
    d = CONFIG.d_model
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=d, apply_b_dec_to_input=False))
    with torch.no_grad():
        for weight, value in ((sae.W_enc, torch.eye(d)), (sae.W_dec, torch.eye(d))):
            weight.copy_(value)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    sha256 = load_checkpoint(ckpt).sha256
    sae.cfg.metadata.trm_interp = {"sites": ["fast"], "checkpoint_sha256": sha256}
    sae.save_model(folder / "sae")
    return folder / "sae", store


def coefficient(first: int, source: int, target: int) -> float:
    """How the target channel of `fast` depends on the source channel of `fast` a cycle before, from
    tick `first` on: a product of matrices of (slow, fast) x channels, of one cell."""
    d, of = CONFIG.d_model, {"slow": slice(0, CONFIG.d_model), "fast": slice(CONFIG.d_model, None)}
    net = COPY * np.eye(d)
    net[SOURCE, TARGET] = PLANTED
    whole = np.eye(2 * d)  # rows: what each number was; columns: what it becomes
    for tick in range(first + 1, first + 1 + len(CYCLE)):
        writes = CYCLE[tick % len(CYCLE)]
        reads = "slow" if writes == "fast" else "fast"
        one = np.eye(2 * d)
        one[of[writes], of[writes]] = KEEP * np.eye(d) + net
        one[of[reads], of[writes]] = net
        whole = whole @ one
    return float(whole[d + source, d + target])


def levels(model: Any, last: int) -> np.ndarray:
    """Mean of each channel of `fast` over cells after tick `last`, [puzzle, channel]."""
    x = model.embed(torch.from_numpy(squares().inputs))
    state = model.initial_state(x)
    with torch.no_grad():
        for tick in model.config.schedule.ticks(STEPS)[: last + 1]:
            written = model.evaluate(tick, *model.operands(tick, state, x))
            state = state._replace(**{tick.writes: written})
    assert (state.fast >= 0).all()  # so that every feature is its channel
    return state.fast.mean(1).numpy()


def test_a_planted_circuit_is_recovered(cli: Cli, made: tuple[Path, Path], tmp_path: Path):
    sae, store = made
    words = ["circuits", sae, store, "--all-puzzles", "--ticks", "3,8,13", "--out", tmp_path]
    words += ["--controls", 2, "--checked", 9, "--batch-size", 5, "--device", "cpu"]
    answer = cli(*words, "--json", "--tolerance", 100)  # all runs are settled
    assert answer.code == 0, answer.err
    result = CircuitsSummary.from_json(json.loads(answer.out))
    assert result == CircuitsSummary.read(tmp_path / "summary.json")
    assert result.lag == len(CYCLE) and set(result.fates) == {"settled"}
    assert {SOURCE, TARGET} < set(result.features) and 0 not in result.features  # pad never fires
    edges = pd.read_csv(tmp_path / "edges.csv").set_index(["source_tick", "source", "target"])
    model = load_checkpoint(store.parent / "toy").model
    for tick in (3, 8, 13):
        before = levels(model, tick).mean(0)
        for source in result.features:
            for target in result.features:
                weight = edges.loc[(tick, source, target), "weight"]
                wanted = before[source] * coefficient(tick, source, target)
                np.testing.assert_allclose(weight, wanted, rtol=1e-4, atol=1e-7)
    assert edges.loc[(3, SOURCE, TARGET), "weight"] > 0
    assert edges.loc[(3, TARGET, SOURCE), "weight"] == 0
    # linear: what is lost under ablation is the weight
    checks = pd.read_csv(tmp_path / "checks.csv")
    assert len(checks) == 1  # between features there is one edge a tick, and one pair of them
    assert (checks["source"][0], checks["target"][0]) == (SOURCE, TARGET)
    np.testing.assert_allclose(checks["lost"], checks["weight"], rtol=1e-3, atol=1e-6)
    assert (checks["most_of_controls"] == 0).all()  # channels 1 and 3, of which 4 has nothing
    of = result.fates["settled"]
    assert of.n == len(squares()) and (of.checked, of.confirmed) == (1, 1)
    assert of.agreement is not None and of.agreement.value == pytest.approx(1, abs=1e-6)
    assert "hold under ablation" in "\n".join(lines(result))


def test_controls_fire_at_the_tick_of_their_source_and_are_none_of_its_targets():
    """Of five features at tick 5 the first two are source and target, and the last is silent; at
    tick 12 all fire, and there is another target."""
    levels = np.array([[0.3, 0.3, 0.3, 0.3, 0.0], [0.3, 0.3, 0.3, 0.3, 0.3]])
    measured = Edges(np.zeros(0), np.zeros(0), [5, 12], np.zeros(0), levels, levels)
    columns = ["source_tick", "source", "target"]
    picked = {
        "settled": pd.DataFrame([(5, 0, 1), (12, 0, 0)], columns=columns),  # and to itself
        "wandering": pd.DataFrame([(12, 0, 2)], columns=columns),
    }
    assert controls_of(measured, [5, 12], picked, 2, seed=0)[5, 0] == [2, 3]
    assert controls_of(measured, [5, 12], picked, 1, seed=0).keys() == {(5, 0), (12, 0)}
    late = {"settled": picked["wandering"]}
    assert controls_of(measured, [5, 12], late, 3, seed=0) == {(12, 0): [1, 3, 4]}
    with pytest.raises(UserError, match="only 2 other features fire: lower --controls"):
        controls_of(measured, [5, 12], picked, 3, seed=0)


def test_the_page_and_the_graph(cli: Cli, made: tuple[Path, Path], tmp_path: Path):
    sae, store = made
    named = tmp_path / ABOUT
    named.mkdir(parents=True)
    for file in sae.iterdir():
        (named / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "out"
    words = ["circuits", named, store, "--all-puzzles", "--edges", 4, "--checked", 0]
    answer = cli(*words, "--features", f"{SOURCE},{TARGET}", "--out", out, "--device", "cpu")
    assert answer.code == 0, answer.err
    page = (out / "circuits.html").read_text()
    assert "Plotly.newPlot" in page and "src=" not in page.split("Plotly.newPlot")[1]
    assert ABOUT not in page and ABOUT.replace("<", "\\u003c") not in page  # escaped
    assert "lt;b" in page
    graph = json.loads(next(out.glob("graph-*.json")).read_text())
    assert set(graph) == {"metadata", "qParams", "nodes", "links"} and len(graph["links"]) == 4
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(ids) == len(set(ids))
    layer = {node["node_id"]: int(node["layer"]) for node in graph["nodes"]}
    for link in graph["links"]:
        assert layer[link["target"]] == layer[link["source"]] + 1 and link["weight"] > 0
    for node in graph["nodes"]:
        assert {"feature", "ctx_idx", "feature_type", "jsNodeId", "clerp"} <= set(node)
        number = int(node["clerp"].split()[1])
        assert node["node_id"] == node_id(int(node["layer"]), number)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--ticks", 2], "--ticks 2: edges can go from ticks 0, 1, 3, 5, 6, 8"),
        (["--ticks", STEPS * EVALUATIONS - 2], "edges can go from ticks 0, 1, 3"),
        (["--features", 0], "feature 0 never fires on these puzzles"),
        (["--features", 99], f"--features 99: there are {CONFIG.d_model}, from 0"),
        (["--site", "slow", "--controls", 50, "--force-mismatch"], "lower --controls"),
    ],
)
def test_bad_words_are_one_line(
    cli: Cli, made: tuple[Path, Path], tmp_path: Path, words: list[Any], line: str
):
    out = tmp_path / "out"
    answer = cli("circuits", *made, "--all-puzzles", "--out", out, "--device", "cpu", *words)
    assert answer.code == 2 and line in answer.err and answer.err.count("\nerror") <= 1
    assert not (out / "summary.json").exists()
