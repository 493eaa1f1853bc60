"""What the SAE commands write where: nothing foreign deleted, one writer, leftovers removed."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_runs import quick, silent, weights
from sae_store import noise, write_store

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import DiskError
from trm_interp.runtime.locks import locked_folder
from trm_interp.runtime.outputs import maker, mark
from trm_interp.sae import saved
from trm_interp.sae.train import train_sae
from trm_interp.sae.trainer import Trainer

Cli = Callable[..., Any]
FLAGS: list[dict[str, bool]] = [{}, {"resume": True}, {"overwrite": True}]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("outputs") / "store", noise(8))


@pytest.fixture(scope="module")
def made(store: Path) -> Path:
    assert train_sae(quick(store, store.parent / "sae"), silent)
    return store.parent / "sae"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_checkpoint_is_not_taken_for_an_sae(
    flags: dict[str, bool], copier: Path, store: Path, tmp_path: Path
):
    ckpt = shutil.copytree(copier, tmp_path / "ckpt")
    before = contents(ckpt)
    for made_by in (None, "train"):
        if made_by:
            mark(ckpt, made_by)
            before = contents(ckpt)
        with pytest.raises(UserError, match=f"written by `{made_by}`" if made_by else "no marker"):
            train_sae(quick(store, ckpt, **flags), silent)
        assert contents(ckpt) == before
    load_checkpoint(ckpt)


@pytest.mark.parametrize("flags", FLAGS)
def test_a_training_run_of_a_trm_is_left_alone(flags: dict[str, bool], store: Path, tmp_path: Path):
    state = {"step": 3, "model": {"w": torch.zeros(2)}, "identity": {}}
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "train_state.pt")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="no marker"):
        train_sae(quick(store, tmp_path / "run", **flags), silent)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("flags", FLAGS)
def test_the_store_is_no_output(flags: dict[str, bool], store: Path):
    before = contents(store)
    with pytest.raises(UserError, match="leaves it alone"):
        train_sae(quick(store, store, **flags), silent)
    assert contents(store) == before


def test_overwriting_starts_anew_and_keeps_what_is_not_its_own(run: Path, store: Path):
    (run / "notes.md").write_text("mine")
    (run / "measures.json").write_text("{}")  # of the SAE that goes
    with pytest.raises(UserError, match="use --resume to continue or --overwrite"):
        train_sae(quick(store, run), silent)
    before = weights(run)
    assert train_sae(quick(store, run, overwrite=True, seed=1), silent)
    assert (run / "notes.md").read_text() == "mine" and maker(run) == "train-sae"
    assert not (run / "measures.json").exists()
    assert not torch.equal(before["W_enc"], weights(run)["W_enc"])


def test_a_wrong_word_costs_nothing_of_an_earlier_run(run: Path, store: Path):
    before = contents(run)
    for wrong in (
        {"site": "z_H"},
        {"ticks": "999"},
        {"k": 99, "arch": "topk"},
        {"batch_size": 10**6},
    ):
        with pytest.raises(UserError):
            train_sae(quick(store, run, overwrite=True, **wrong), silent)
    assert contents(run) == before


def test_an_sae_without_its_state_is_not_resumed_from_nothing(run: Path, store: Path):
    for name in ("train_state.pt", "card.json"):
        (run / name).unlink()
    before = contents(run)
    with pytest.raises(UserError, match=r"train_state.pt is missing: nothing to resume from"):
        train_sae(quick(store, run, resume=True), silent)
    assert contents(run) == before


def test_a_second_process_is_refused(run: Path, store: Path):
    with locked_folder(run), pytest.raises(UserError, match="is being written by another process"):
        train_sae(quick(store, run, resume=True), silent)


def test_a_run_from_before_the_markers_is_resumed_not_overwritten(run: Path, store: Path):
    (run / ".trm-interp.json").unlink()
    before = contents(run)
    with pytest.raises(UserError, match="no marker"):
        train_sae(quick(store, run, overwrite=True), silent)
    assert contents(run) == before
    assert train_sae(quick(store, run, resume=True), silent) and maker(run) == "train-sae"


def test_a_run_from_before_the_markers_that_saved_nothing_is_begun_anew(
    made: Path, store: Path, tmp_path: Path
):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="no marker"):
        train_sae(quick(store, tmp_path, overwrite=True), silent)
    assert train_sae(quick(store, tmp_path, resume=True), silent)
    assert all(torch.equal(row, weights(made)[name]) for name, row in weights(tmp_path).items())
    assert (tmp_path / "metrics.jsonl").read_text() == (made / "metrics.jsonl").read_text()


def test_what_a_kill_leaves_while_saving_is_removed_on_the_next_start(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "sae"
    train_sae(quick(store, tmp_path / "whole"), silent)
    child = os.fork()
    if child == 0:
        saved.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        train_sae(quick(store, out), silent)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(out.glob(".saving-*"))) == 1
    (out / ".saving-mine").mkdir()
    (out / ".saving-mine" / "thesis.txt").touch()
    assert train_sae(quick(store, out, resume=True), silent)
    assert [left.name for left in out.glob(".s*")] == [".saving-mine"]
    whole, killed = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


@pytest.mark.parametrize("steps", [0, 15])
def test_a_run_that_ended_before_its_first_save_is_begun_anew(
    steps: int, store: Path, tmp_path: Path
):
    """Stopped before the first step, and killed when there were rows but no state."""
    out = tmp_path / "sae"
    asked = iter([*[False] * steps, *[True] * 99])
    assert not train_sae(quick(store, out, save_every=99), silent, should_stop=lambda: next(asked))
    (out / "train_state.pt").unlink(missing_ok=True)
    lines: list[str] = []
    assert train_sae(quick(store, out, resume=True), lines.append)
    assert lines == [] and len((out / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("limit", [900, 6000])  # bytes a file: a row of metrics, a state
def test_a_full_disk_is_one_line_and_what_was_saved_is_resumed(
    limit: int, store: Path, tmp_path: Path
):
    out, more = tmp_path / "sae", {"log_every": 2, "max_steps": 30}
    train_sae(quick(store, tmp_path / "whole", **more), silent)
    child = os.fork()
    if child == 0:
        plain = Trainer.save

        def save(self: Trainer, *given: Any) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
            plain(self, *given)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, 1 << 30))

        if limit == 900:
            Trainer.save = save  # type: ignore[method-assign]
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, 1 << 30))
        try:
            train_sae(quick(store, out, **more), silent)
        except DiskError as error:
            os._exit(7 if "make room" in str(error) and str(out) in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    lines: list[str] = []
    assert train_sae(quick(store, out, resume=True, **more), lines.append)
    assert lines == (["resuming at optimizer step 10 of 30"] if limit == 900 else [])
    whole, full = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(whole[name], full[name]) for name in whole)
    rows = [(at / "metrics.jsonl").read_text() for at in (tmp_path / "whole", out)]
    assert rows[0] == rows[1] and not list(out.glob(".*partial")) + list(out.glob(".saving*"))


# states and metrics that lie

BROKEN: dict[str, tuple[Change, str]] = {
    **{
        f"no {key}": (lambda state, key=key: state.pop(key), f"missing required field `{key}`")
        for key in ("identity", "sae", "trainer", "stream", "rng", "seconds")
    },
    "stream of text": (lambda s: s.update(stream="x"), "stream: Expected `object`"),
    "offset": (lambda s: s["stream"].update(offset=10**12), "not in an epoch"),
    "negative": (lambda s: s["stream"].update(epoch=-1), "stream.epoch: Expected `int` >= 0"),
    "rng": (lambda s: s.update(rng="x"), "damaged"),
    "short rng": (lambda s: s.update(rng=torch.zeros(3, dtype=torch.uint8)), "damaged"),
    "weights": (lambda s: s["sae"].pop("W_enc"), "damaged"),
    "wide": (lambda s: s["sae"].update(W_enc=torch.zeros(9, 9)), "damaged"),
    "optimizer": (lambda s: s["trainer"].update(optimizer=3), "damaged"),
    "moments": (lambda s: wrong_moments(s["trainer"]), "moments have other shapes"),
    "steps": (lambda s: s["trainer"].update(n_training_steps=10**9), "step 1000000000 of 30"),
    "text": (lambda s: s["trainer"].update(n_training_steps="7"), "n_training_steps: Expected"),
    "samples": (lambda s: s["trainer"].update(n_training_samples=5), "5 rows in 30 steps"),
    "counts": (lambda s: s["trainer"].update(act_freq_scores=torch.zeros(3)), "of 3 features"),
    "identity": (lambda s: s.update(identity={}), "of another run"),
}


def wrong_moments(trainer: dict[str, Any]) -> None:
    trainer["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_state_that_lies_is_refused_in_a_line(fault: str, run: Path, store: Path):
    change, words = BROKEN[fault]
    state = torch.load(run / "train_state.pt", weights_only=True)
    change(state)
    torch.save(state, run / "train_state.pt")
    with pytest.raises(UserError, match=words) as refused:
        train_sae(quick(store, run, resume=True), silent)
    line = str(refused.value)
    assert "train_state.pt" in line and "\n" not in line and len(line) < 300 + len(str(run))


@pytest.mark.parametrize("where", ["torch.load", "trm_interp.sae.trainer.Trainer._take"])
def test_a_lack_of_memory_is_no_damage(
    where: str, run: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(where, fail)
    with pytest.raises(torch.OutOfMemoryError):
        train_sae(quick(store, run, resume=True), silent)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\n", b"[]\n", b'{"step": "1"}\n', b"{\n", b"[" * 10**5 + b"\n"]
)
def test_metrics_that_are_none_are_refused(line: bytes, run: Path, store: Path):
    rows = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(rows[0] + line + rows[2])
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 is damaged"):
        train_sae(quick(store, run, resume=True), silent)
    (run / "metrics.jsonl").unlink()  # as the message advises
    assert train_sae(quick(store, run, resume=True), silent)
