"""Features of an SAE in the explorer, with one whose features are known: relu(x) and relu(-x)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explore_worlds import checkpoint_of, drawn, identity_for, rows, sudokus
from sae_runs import identity_sae

import trm_interp.explore.features
from trm_interp.explore.edits import Feature, Noise
from trm_interp.explore.features import open_features
from trm_interp.explore.session import Session
from trm_interp.explore.trees import Tree, data_of, query_of, tree_of
from trm_interp.recording.hooks import HookedModel
from trm_interp.runtime.errors import UserError

D = 8


@pytest.fixture
def session(tmp_path: Path) -> Session:
    checkpoint = checkpoint_of(drawn("trm"))
    features = open_features(identity_for(checkpoint, tmp_path / "sae"), checkpoint)
    return Session(checkpoint, sudokus(), 3, features=features)


def z_L(session: Session, node: Any, moment: int) -> np.ndarray:
    """[cell, d_model]"""
    return session.states_at(node, moment).z_L[0, session.model.config.prefix :].numpy()


def test_what_is_active_here_and_now(session: Session):
    run, moment, cell = session.run(session.plain(0)), 7, 3
    z = z_L(session, run.node, moment)
    acts = np.concatenate([z, -z], 1).clip(0)
    active = session.features.active(session, run, moment, cell, "activation", 16)
    assert len(active) == D  # of each pair one fires
    expected = np.flatnonzero(acts[cell])[np.argsort(-acts[cell][acts[cell] > 0])]
    assert [one.feature for one in active] == expected.tolist()
    first = active[0]
    assert first.activation == pytest.approx(acts[cell].max(), rel=1e-5)
    others = np.delete(acts[:, first.feature], cell).mean()
    assert first.over_cells == pytest.approx(first.activation - others, rel=1e-4)
    course = session.features.course(session, run, first.feature)
    assert course.shape == (session.last + 1, 16)
    np.testing.assert_allclose(course[moment], acts[:, first.feature], rtol=1e-5)
    rest = np.delete(course[:, cell], moment).mean()
    assert first.over_moments == pytest.approx(first.activation - rest, rel=1e-3)
    by_cells = session.features.active(session, run, moment, cell, "cells", 16)
    apart = [one.over_cells for one in by_cells]
    assert apart == sorted(apart, reverse=True)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("ablate", 9.0, lambda x: np.minimum(x, 0)),  # relu(x) goes, -relu(-x) stays
        ("clamp", 2.0, lambda x: np.minimum(x, 0) + 2),
        ("steer", 0.5, lambda x: x + 0.5),
    ],
)
def test_a_feature_is_changed_once(session: Session, mode: Any, value: float, expected: Any):
    plain, at, feature = session.plain(0), 8, 2
    fork = plain.fork(Feature(at, feature, mode, value, cells=(0, 5)))
    before, after = (z_L(session, node, at) for node in (plain, fork))
    changed = before.copy()
    changed[[0, 5], feature] = expected(before[[0, 5], feature])
    np.testing.assert_allclose(after, changed, atol=1e-6)
    run = session.run(fork)
    assert (run.answer.loss[:at] == session.run(plain).answer.loss[:at]).all()
    assert (run.answer.loss[at + 1 :] != session.run(plain).answer.loss[at + 1 :]).any()


def test_a_change_that_lasts_is_made_at_every_evaluation(session: Session):
    plain, at, feature = session.plain(0), 8, 2
    fork = plain.fork(Feature(at, feature, "ablate", lasts=True))
    once = plain.fork(Feature(at, feature, "ablate"))
    later = fork.fork(Noise(11, ("z_H",), 1.0, 1))  # it goes on in a fork of the fork
    own, always, of_fork = (
        session.features.course(session, session.run(node), feature) for node in (once, fork, later)
    )
    assert own[at - 1].any() and not own[at].any() and own[at + 1 :].any()
    np.testing.assert_allclose(always[at:], 0, atol=1e-6)
    np.testing.assert_allclose(of_fork[at:], 0, atol=1e-6)
    earlier = fork.fork(Noise(4, ("z_H",), 1.0, 1))  # and not in one of what was before it
    assert earlier.parent is plain
    again = z_L(session, fork, 15)
    session._runs.clear()
    np.testing.assert_array_equal(z_L(session, fork, 15), again)


def test_an_sae_of_what_moves(tmp_path: Path):
    """The mean of the plain run over the ticks of the SAE is taken away first."""
    checkpoint = checkpoint_of(drawn("trm"))
    path = identity_for(checkpoint, tmp_path / "sae", centre="puzzle", ticks=[0, 1, 3])
    session = Session(checkpoint, sudokus(), 3, features=open_features(path, checkpoint))
    plain = session.plain(0)
    mean = np.mean([z_L(session, plain, tick + 1) for tick in (0, 1, 3)], 0)
    course = session.features.course(session, session.run(plain), 1)
    expected = (z_L(session, plain, 7) - mean)[:, 1].clip(0)
    np.testing.assert_allclose(course[7], expected, atol=1e-6)
    fork = plain.fork(Feature(7, 1, "ablate"))
    course = session.features.course(session, session.run(fork), 1)
    np.testing.assert_allclose(course[7], 0, atol=1e-6)


def test_a_page_of_a_feature(session: Session):
    run = session.run(session.plain(0))
    course = session.features.course(session, run, 2)
    page = dict(session.features.page(session, run, 2))
    largest, _, share = page["largest here, fires in"].partition(", ")
    assert float(largest) == pytest.approx(course.max(), rel=1e-2)
    assert float(share.split("%")[0]) == pytest.approx(100 * (course > 0).mean(), abs=0.01)
    weight = session.model.logit_weight[list(session.task.answer_tokens), 2].detach()
    token = session.task.tokens[session.task.answer_tokens[int(weight.argmax())]]
    assert page["pushes logits of"].startswith(f"{token} ")
    assert "trade their facts" in page["tells apart (AUC; 0.5 is chance)"]


def test_the_address_holds_changes_of_features(session: Session):
    tree = Tree((session.plain(0),)).with_fork(0, Feature(4, 3, "clamp", 1.5, True, (2, 3)))
    tree = tree.with_fork(1, Feature(6, 0, "ablate"), "a, b")
    again = tree_of(session, data_of(query_of(tree.to_json(session))))
    assert again.nodes == tree.nodes and again.nodes[2].name == "a, b"
    assert tree.nodes[1].name == "feature 3 in 2 cells clamped to 1.5 from here on"


@pytest.mark.parametrize(
    ("fork", "message"),
    [
        ("0,feature,4,16,ablate,0.0,on,*,n", "features are 0 to 15, not 16"),
        ("0,feature,4,3,explode,0.0,on,*,n", "changed by ablate, clamp, steer, not 'explode'"),
        ("0,feature,4,3,clamp,inf,on,*,n", "must be a number, not inf"),
        ("0,feature,4,3,clamp", "no fork is written"),
    ],
)
def test_addresses_of_features_that_were_tampered_with(session: Session, fork: str, message: str):
    with pytest.raises(UserError, match=message):
        tree_of(session, {"fork": [fork]})


def test_a_feature_without_an_sae():
    session = Session(checkpoint_of(drawn("trm")), sudokus(), 3)
    with pytest.raises(UserError, match="no SAE is open: start the explorer with --sae"):
        session.run(session.plain(0).fork(Feature(4, 3, "ablate")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"checkpoint_sha256": "f" * 64}, "was trained on checkpoint ffffffffffff"),
        (
            {"sites": ["embed"]},
            "embed; the explorer shows SAEs of states, z_H or z_L, and of",
        ),
        ({"shuffle": 3}, "shuffled ticks"),
    ],
)
def test_saes_that_do_not_fit(tmp_path: Path, more: Any, message: str):
    checkpoint = checkpoint_of(drawn("trm"))
    path = identity_for(checkpoint, tmp_path / "sae", **more)
    with pytest.raises(UserError, match=message):
        open_features(path, checkpoint)


def test_an_sae_of_another_width(tmp_path: Path):
    path = identity_sae(tmp_path / "sae", 5)
    with pytest.raises(UserError, match=r"sae is 5 wide, states of tiny are 8: give an SAE"):
        open_features(path, checkpoint_of(drawn("trm")))


INSIDE = "blocks.0.hook_resid_mid"


@pytest.fixture
def inside(tmp_path: Path) -> Session:
    """With an SAE of a site inside evaluations."""
    checkpoint = checkpoint_of(drawn("trm"))
    path = identity_for(checkpoint, tmp_path / "sae", sites=[INSIDE])
    return Session(checkpoint, sudokus(), 3, features=open_features(path, checkpoint))


def hooked_end(session: Session, changes: dict[str, Any], site: str = INSIDE) -> Any:
    """Tokens at the end of the first puzzle's run, and its values of the site by hook name, with
    changes of the site at some of them; by transformer-lens, without the explorer."""
    inputs, _ = rows(session.puzzles, 0)
    hooked, seen = HookedModel.of(session.model, n_sup=session.steps), {}

    def note(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = changes.get(hook.name, lambda x: x)(value)
        seen[hook.name] = value[0, session.model.config.prefix :].detach().numpy()
        return value

    with torch.no_grad():
        readout = hooked.run_with_hooks(inputs, fwd_hooks=[(lambda n: n.endswith(site), note)])
    return readout.logits[0, -1].argmax(-1).numpy(), seen


def test_an_sae_of_a_site_inside_evaluations(inside: Session):
    run = inside.run(inside.plain(0))
    end, seen = hooked_end(inside, {})
    course = inside.features.course(inside, run, 3)
    names = [f"{m.tick.name}.{INSIDE}" for m in inside.moments[1:]]
    np.testing.assert_allclose(
        course[1:], np.stack([seen[n][:, 3].clip(0) for n in names]), atol=1e-5
    )
    assert not course[0].any() and (run.answer.tokens[-1] == end).all()
    active = inside.features.active(inside, run, 7, 2, "activation")
    assert active[0].activation == pytest.approx(np.abs(seen[names[6]][2]).max(), rel=1e-4)
    assert not inside.features.active(inside, run, 0, 2, "activation")
    assert inside.features.page(inside, run, 3)[0][0] == "largest here, fires in"
    with pytest.raises(UserError, match="inside evaluations: go to moment 1 or later"):
        inside.run(inside.plain(0).fork(Feature(0, 3, "ablate")))


def test_an_evaluation_without_the_site(inside: Session):
    """A change of it alone would do nothing; one that lasts is done in later ones."""
    features = replace(inside.features, within=("z_L",))
    session = Session(inside.checkpoint, inside.puzzles, 2, features=features)
    assert session.moments[3].tick.writes == "z_H"
    plain = session.plain(0)
    with pytest.raises(UserError, match="before moment 3 has no blocks.0.* that writes z_L"):
        session.run(plain.fork(Feature(3, 3, "clamp", 4.0)))
    session.check(Feature(3, 3, "clamp", 4.0, lasts=True))
    session.check(Feature(2, 3, "clamp", 4.0))


@pytest.mark.parametrize("lasts", [False, True])
def test_forks_by_a_feature_inside_evaluations(inside: Session, lasts: bool):
    """From the evaluation that the moment is after; what a fork before did there stays."""
    at, plain = 7, inside.plain(0)
    fork = plain.fork(Feature(at, 3, "clamp", 4.0, lasts))
    names = [f"{m.tick.name}.{INSIDE}" for m in inside.moments[1:]]

    def clamped(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value[..., 3] = value[..., 3].clamp(max=0) + 4.0
        return value

    changed = names[at - 1 :] if lasts else [names[at - 1]]
    end, seen = hooked_end(inside, dict.fromkeys(changed, clamped))
    run = inside.run(fork)
    assert (run.answer.tokens[-1] == end).all()
    np.testing.assert_allclose(
        inside.features.course(inside, run, 3)[1:],
        np.stack([seen[n][:, 3].clip(0) for n in names]),
        atol=1e-4,
    )
    plain_run = inside.run(plain)
    assert (run.answer.loss[:at] == plain_run.answer.loss[:at]).all()
    noise = Noise(at, ("z_H",), 1.0, 1)
    both = plain.fork(noise).fork(Feature(at, 3, "clamp", 4.0, lasts))
    apart = inside.states_at(both, at).z_H - inside.states_at(fork, at).z_H
    moved = inside.states_at(plain.fork(noise), at).z_H - inside.states_at(plain, at).z_H
    torch.testing.assert_close(apart, moved, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("most", [50_000_000, 1], ids=["together", "one by one"])
def test_activity_over_a_run(session: Session, most: int, monkeypatch: pytest.MonkeyPatch):
    """Means weigh a value by the moments that it lasts."""
    monkeypatch.setattr(trm_interp.explore.features, "MOST_VALUES", most)
    run = session.run(session.plain(0).fork(Noise(5, ("z_L",), 1.0, 2)))
    course = session.features.course(session, run, 4)
    activity = session.features.activity(session, run)
    np.testing.assert_allclose(activity.mean[:, 4], course.mean(0), rtol=1e-4)
    assert activity.largest[4] == pytest.approx(course.max())
    ends = torch.from_numpy(activity.ends[:, [4]].toarray()).view(3, 16).numpy()
    np.testing.assert_allclose(ends, course[session.ends], rtol=1e-5)
