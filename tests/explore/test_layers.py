"""Heat layers that are computed when they are looked at."""

from base64 import b64decode

import numpy as np
import pytest
import torch
from explore_worlds import maze_session, rows, session_of, toy_session

from trm_interp import patch
from trm_interp.core.counter import normal
from trm_interp.explore.edits import Given, Noise
from trm_interp.explore.layers import (
    Layer,
    effect_layer,
    feature_layer,
    patch_effect,
    probe_layer,
    probe_names,
    recorded_steps,
)
from trm_interp.explore.payload import heat_payload
from trm_interp.explore.session import Session
from trm_interp.runtime.errors import UserError


@pytest.fixture
def trm() -> Session:
    return session_of("trm")


def test_patch_effects_are_those_of_attribution(trm: Session):
    """Of a fork from another start, which recorded runs can be as well."""
    inputs, labels = rows(trm.puzzles, 0)
    base = patch.record(trm.model, inputs, labels, 3)
    start = base.before[0]
    which = trm.model.state_names.index("z_L")
    noisy = start.z_L + normal(start.z_L[0].numel(), 4, 0, which).view_as(start.z_L)
    donor = patch.record(trm.model, inputs, labels, 3, start=start._replace(z_L=noisy))
    expected = patch.attribute(base, donor)
    fork = trm.plain(0).fork(Noise(0, ("z_L",), 1.0, 4))
    effect = patch_effect(trm, fork, "z_L")
    prefix = trm.model.config.prefix
    assert effect.shape == (trm.last + 1, 16)
    for moment in trm.moments:
        if moment.tick is None or moment.tick.writes == "z_L":
            hook = "start.hook_z_L" if moment.tick is None else moment.tick.hook
            np.testing.assert_allclose(
                effect[moment.at], expected[hook][0, prefix:], rtol=1e-3, atol=1e-7
            )
    assert np.abs(effect).max() > 1e-5


def test_small_patches_do_what_the_effect_says(trm: Session):
    """The sum over cells is the change of the loss, as far as noise of this size is linear."""
    plain, at = trm.plain(0), trm.ends[-2]
    fork = trm.run(plain.fork(Noise(at, ("z_H",), 1e-3, 3, tuple(range(16)))))
    change = fork.answer.loss[-1] - trm.run(plain).answer.loss[-1]
    effect = patch_effect(trm, fork.node, "z_H")
    assert not effect[:at].any()
    assert effect[at].sum() == pytest.approx(change, rel=0.2, abs=1e-6)


def test_effects_of_several_runs(trm: Session):
    plain = trm.plain(0)
    fork = plain.fork(Noise(5, ("z_H",), 1.0, 3))
    of_fork = fork.fork(Given(7, 2, 4))
    layer = effect_layer(trm, [trm.run(node) for node in (plain, fork, of_fork)], "z_H")
    assert not layer.heat[0].any() and layer.heat[1].any() and not layer.heat[2].any()
    with pytest.raises(UserError, match="make a fork first"):
        effect_layer(trm, [trm.run(plain)], "z_H")


@pytest.mark.parametrize("world", [session_of, toy_session, maze_session])
def test_probes_of_every_task(world):
    session = world()
    run = session.run(session.plain(0))
    others = sum(session.task.asked(inputs).any() for inputs in session.puzzles.inputs[1:])
    names, tried = probe_names(session.task, session.puzzles), 0
    for fact in names:
        try:
            layer = probe_layer(session, [run], session.model.answer, fact)
        except UserError as error:
            assert "is the same in all cells" in str(error)
            continue
        tried += 1
        heat = layer.heat[0]
        assert heat.shape == (session.last + 1, session.task.cells)
        assert (heat >= 0).all() and (heat <= 1).all()
        assert f"{fact!r}, fitted on {others} other puzzles" in layer.words
    assert tried


def test_a_probe_is_not_fitted_on_the_puzzle_that_it_shows(trm: Session):
    probe_layer(trm, [trm.run(trm.plain(1))], "z_H", "wrong")
    runs = recorded_steps(trm, (0, 2))
    assert runs.x.shape[0] == 2 and recorded_steps(trm, (0, 2)) is runs  # it is kept
    own = trm.run(trm.plain(0)).written["z_H"].values[-1]
    last = patch.last_hook(trm.model, 3, "z_H", 99)
    torch.testing.assert_close(runs.values[last][0], own)


def test_layers_that_cannot_be_shown(trm: Session):
    run = trm.run(trm.plain(0))
    with pytest.raises(UserError, match="no probe for 'x': choose one of wrong, conflict"):
        probe_layer(trm, [run], "z_H", "x")
    with pytest.raises(UserError, match="no SAE is open"):
        feature_layer(trm, [run], 0)


def test_levels_of_signed_heat():
    heat = np.array([[0.0, -2.0], [1.0, 2.0]], np.float32)

    data = heat_payload("effect", Layer([heat], "w"))
    levels = np.frombuffer(b64decode(data["runs"][0]), np.uint8)
    assert data["zero"] == 128 and data["largest"] == 2.0 and "below 0" in data["words"]
    assert levels.tolist() == [128, 1, 192, 255]  # 128 + 127 x / 2, to even
    data = heat_payload("probe", Layer([heat.clip(0)], "w"))
    assert np.frombuffer(b64decode(data["runs"][0]), np.uint8).tolist() == [0, 0, 128, 255]
