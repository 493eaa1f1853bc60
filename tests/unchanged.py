"""What every command gives on a tiny model, kept so that a restructuring cannot change it unseen.

`test_unchanged.py` runs the commands again and compares with `golden/unchanged/`. Where results are
meant to change, look at what the test reports, then renew the files with

    python tests/unchanged.py --renew [COMMAND ...]

which does nothing without the flag. A JSON key, CSV column or file that is only renamed needs no
renewal but a line in `RENAMED`; one that is new needs a line in `ADDED`.

Only the command line and the public names of `trm_interp.core` are used, whatever the modules
behind them are called; what was written is read with h5py, safetensors, pandas and json.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from itertools import islice, permutations
from pathlib import Path

import torch
from compare_trees import Tolerance, Tree, differences, leaves, load, probe, save
from conftest import invoke
from unchanged_files import claims, printed, store, trained, written

from trm_interp import core
from trm_interp.core import TRM, TRMConfig, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "unchanged"

# Old key path -> new key path, both from the name of the command on, such as
# "outcomes/summary.json/exact": "outcomes/summary.json/solved_share". "*" stands for one part of
# the path, and for the same part in the new path. What lies below a renamed key moves along.
RENAMED: dict[str, str] = {
    "*/summary.json/*/auc_at_equal_waves": "*/summary.json/*/auc_at_equal_rating",
    "*/summary.json/auc_of_waves_for_failure": "*/summary.json/auc_of_rating_for_failure",
    "*/printed/unsolved_at_step": "*/printed/lost_again_at_step",
}
_FILES = [f"*/{name}" for name in ("summary.json", "outcomes.csv", "ratings.csv")]
for _at in (f"{file}/%s{end}" for file in _FILES for end in ("", "_low", "_high")):
    RENAMED[_at % "unsolved"] = _at % "lost_again"
_COLUMNS = {  # `step`, `tick` and `cycle` count from 0; what is done has a name of its own
    "cycle h_cycles_done": "losses/losses losses/losses_auc losses/losses_puzzles "
    "losses/solve_steps",
    "evaluation evaluations_done": "spread/spread spread/locality",
    "steps steps_done": "spread/spread spread/locality",
    "step steps_done": "settling/same_phase_drift basins/trajectories",
    "step training_step": "stitch/fit",
    "tick update": "*/divergence */divergence_auc */same_puzzle */same_puzzle_auc",
}
for _names, _tables in _COLUMNS.items():
    _old, _new = _names.split()
    RENAMED |= {f"{table}.csv/{_old}": f"{table}.csv/{_new}" for table in _tables.split()}
# Key paths, written in the same way, that the golden files do not have and that may be new.
_IDENTITY = ("task", "architecture", "schedule", "states", "answer", "latent")  # of a store
ADDED: tuple[str, ...] = tuple(f"*/manifest.json/meta/identity/{name}" for name in _IDENTITY)
ADDED += ("*/card.json/sae/architecture", "*/cfg.json/metadata/trm_interp/architecture")
_TRAIN = "n_sup_warm n_sup_warm_until keep_every fused_mixer stagger easy_until early_weight"
_TRAIN += " prefix_optimizer prefix_lr prefix_decay"
ADDED += tuple(f"*/card.json/train/{name}" for name in _TRAIN.split())
ADDED += ("*/card.json/sae/centre", "*/card.json/sae/shuffle", "*/card.json/settings/centre")
ADDED += tuple(f"*/cfg.json/metadata/trm_interp/{name}" for name in ("centre", "shuffle"))
ADDED += ("*/card.json/settings/shuffle_ticks", "sae-eval/measures.json/bits")
ADDED += ("sae-eval/measures.json/baselines", "*/manifest.json/meta/settings/random_weights")
ADDED += ("sae-eval/measures.json/loop/*/runs/pca", "sae-eval/measures.json/loop/*/runs/pca-bits")
ADDED += ("sae-eval/measures.json/loop/*/recovered_by",)
ADDED += ("stability/summary.json/rating", "*/*/summary/gained")
_LOOK = ("style", "width", "self_contained")
ADDED += tuple(f"*/summary.json/settings/{name}" for name in _LOOK)
ADDED += ("features/figure1_total.csv",)
ADDED += (
    "basins/trajectories.csv",
    "basins/summary.json/settings/shown",
    "basins/summary.json/settings/ends",
)
ADDED += ("basins/summary.json/puzzles_looked_at/*/path_explained",)
ADDED += ("*/divergence.csv/sd", "*/same_puzzle.csv/sd", "losses/losses.csv/sd")
ADDED += ("eval/printed/compiled", "*/summary.json/compiled", "*/summary.json/settings/compile")
ADDED += ("probes/weights.csv",)
ADDED += tuple(f"*/card.json/sae/{name}" for name in ("stores", "mixed_checkpoints"))
ADDED += tuple(f"*/cfg.json/metadata/trm_interp/{n}" for n in ("stores", "mixed_checkpoints"))
ADDED += ("*/card.json/settings/mixed_checkpoints",)

# Facts of the machine or the moment, left out wherever they occur. Paths are kept, with the
# temporary folder replaced by FOLDER.
DROPPED = {"versions", "git_commit", "sae_lens_version", "sae_lens_training_version", "device"}
DROPPED |= {"seconds", "steps_per_s", "times", "command"}  # the command is that of this process
DROPPED |= {"written", "store_sha256", "table_sha256", "shards"}  # files, and hashes of whole files
# Hashes of computed bits: compared only where numbers come out equal bit for bit.
HASHES = {"checkpoint_sha256"}


class World:
    """A folder with a checkpoint and puzzles, in which every command runs at most once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._answers: dict[str, str] = {}
        self._trees: dict[str, Tree] = {}
        save_checkpoint(self.folder / "copier", copier(), {"note": "for tests"})
        write_puzzles(self.folder / "grids.txt")
        val = "..34341221434.21,1234341221434321\n"
        (self.folder / "val.txt").write_text(val)

    def run(self, name: str) -> str:
        """Standard output of a command of `COMMANDS`; those that it needs run first."""
        if name not in self._answers:
            needs, words, _ = COMMANDS[name]
            for need in needs:
                self.run(need)
            done = invoke(*words.replace("@", f"{self.folder}{os.sep}").split())
            if done.code != 0:
                raise RuntimeError(f"{name}: exit status {done.code}: {done.err}")
            self._answers[name] = done.out
        return self._answers[name]

    def tree(self, name: str) -> Tree:
        """What is compared of a command."""
        if name not in self._trees:
            out = self.run(name)
            read = COMMANDS[name][2]
            self._trees[name] = self._cleaned(read(self.folder / name, out))
        return self._trees[name]

    def _cleaned(self, value: Tree) -> Tree:
        """Without facts of the machine or the moment."""
        if isinstance(value, dict):
            return {k: self._cleaned(v) for k, v in value.items() if k not in DROPPED}
        if isinstance(value, list):
            return [self._cleaned(v) for v in value]
        return value.replace(str(self.folder), "FOLDER") if isinstance(value, str) else value


def copier() -> TRM:
    """A model that copies its input and takes every blank for a 1, and forgets some grids later.

    So puzzles whose blanks are 1s are solved, others not, and outcomes change over the steps.
    """
    generator = torch.Generator().manual_seed(36)
    shape = {"cells": 16, "vocab": 6, "d_model": 16, "multiple": 8, "h_cycles": 2, "l_cycles": 2}
    model = TRM(TRMConfig(**shape, prefix=2), generator)
    with torch.no_grad():
        model.get_parameter("q_head.weight").normal_(generator=generator)
        torch.nn.init.zeros_(model.get_parameter("q_head.bias"))
        model.get_parameter("prefix_embedding").normal_(generator=generator)
        tokens, head = (model.get_parameter(name) for name in ("token_embedding", "lm_head.weight"))
        head.copy_(tokens)
        head[2] += tokens[1]  # tokens: 0 pad, 1 blank, 2 the digit 1
        head[1] = 0
        for name, weight in model.named_parameters():
            if name.startswith("net."):
                weight.mul_(0.3)
    return model.eval()


def write_puzzles(file: Path) -> None:
    """16 grids of 4x4 with solutions and one to three blanks: 1s in 12 of them."""
    rows = []
    for i, order in enumerate(islice(permutations("1234"), 16)):
        solution = "".join(order[int(digit) - 1] for digit in "1234341221434321")
        puzzle, digit = solution, "1" if i % 4 else "234"[i // 4 % 3]
        for _ in range(1 + i % 3):
            at = puzzle.rindex(digit) if i % 2 else puzzle.index(digit)
            puzzle = f"{puzzle[:at]}.{puzzle[at + 1 :]}"
        rows.append(f"{puzzle},{solution}\n")
    file.write_text("".join(rows))


# The commands: what must run before, the words ("@" is the folder of the world), what is read

CPU = "--device cpu"
ON = f"--ckpt @copier --puzzles @grids.txt {CPU}"
SMALL_TRAIN = "--preset tiny --d-model 8 --n-heads 2 --prefix 1 --steps 20 --batch-size 4 --n-sup 3"
SMALL_TRAIN += " --eval-every 10 --log-every 5 --val-limit 1 --dtype float32 --no-compile --seed 1"
SMALL_SAE = "--max-steps 20 --expansion 2 --batch-size 16 --buffer-mb 1 --log-every 5 --seed 1"
SMALL_BASINS = "--starts 8 --neighbours 2 --slice 3 --steps 4 --n-puzzles 2 --shuffles 19"
STORED = ("states",)
COMMANDS: dict[str, tuple[tuple[str, ...], str, Callable[[Path, str], Tree]]] = {
    "eval": ((), f"eval {ON} --steps 4 --json", printed),
    "collect": (
        (),
        f"collect {ON} --sites z_L,z_H,resid,embed,logits --limit 2 --steps 2 --out @collect",
        store,
    ),
    "states": ((), f"collect {ON} --steps 8 --out @states", written),
    "train": (
        (),
        f"train --train @grids.txt --val @val.txt {CPU} {SMALL_TRAIN} --out @train",
        trained,
    ),
    "train-sae": (
        STORED,
        f"train-sae @states --site z_L {CPU} {SMALL_SAE} --out @train-sae",
        written,
    ),
    "sae-eval": (
        ("train-sae",),
        f"sae-eval @train-sae @states --tick 9 {CPU} --out @sae-eval/measures.json",
        written,
    ),
    "features": (
        ("train-sae",),
        f"features @train-sae @states --all-puzzles --top 4 --examples 2 {CPU} --out @features",
        written,
    ),
    "steer": (
        ("train-sae",),
        f"steer @train-sae @states --feature 3 --controls 3 --all-puzzles {CPU} --json",
        printed,
    ),
    "circuits": (
        ("train-sae",),
        f"circuits @train-sae @states --all-puzzles --top 2 --ticks 9 --checked 1 --controls 2 "
        f"{CPU} --out @circuits",
        written,
    ),
    "search": ((), f"search {ON} --k 3 --steps 3 --when every --out @search/search.csv", written),
    "outcomes": ((), f"outcomes {ON} --steps 8 --out @outcomes", written),
    "trajectories": (STORED, "trajectories @states --shown 4 --out @trajectories", written),
    "divergence": (
        STORED,
        f"divergence @states --starts 12 --control-puzzles 1 --tries 8 {CPU} --out @divergence",
        written,
    ),
    "divergence-of-puzzles": (
        STORED,
        f"divergence @states --site z_H --starts 0 {CPU} --out @divergence-of-puzzles",
        written,
    ),
    "losses": ((), f"losses {ON} --steps 3 --out @losses", written),
    "basins": ((), f"basins {ON} {SMALL_BASINS} --out @basins", written),
    "origins": (
        (),
        f"origins {ON} --limit 6 --copies 2 --starts 2 --steps 2 --out @origins",
        written,
    ),
    "trace": (
        (),
        f"trace {ON} --starts 3 --steps 4 --then 3 --window 2 --sigma 4 --pairs 3 --exact 1000 "
        "--out @trace",
        written,
    ),
    "used": (
        ("train-sae",),
        f"used {ON} --steps 2 --random 1 --sae @train-sae --features 1 --out @used",
        written,
    ),
    "spread": ((), f"spread {ON} --limit 8 --steps 1 --n-cells 1 --out @spread", written),
    "stitch": (
        (),
        f"stitch @copier @copier --puzzles @grids.txt {CPU} --limit 2 --fit 8 --steps 1 "
        "--link-steps 3 --batch-size 4 --out @stitch",
        written,
    ),
    "settling": ((), f"settling {ON} --steps 8 --long 72 --long-limit 4 --out @settling", written),
    "stability": (
        (),
        f"stability {ON} --steps 8 --exponents 2 --sample 12 --fixed 4 --eigenvalues 3 "
        "--out @stability",
        written,
    ),
    "robustness": (
        (),
        f"robustness {ON} --steps 4 --then 3 --sample 4 --epsilons 1,4 --draws 3 --starts 2 "
        "--iterations 8 --out @robustness",
        written,
    ),
    "internalisation": (
        (),
        f"internalisation {ON} --steps 2 --caps 0-3 --out @internalisation",
        written,
    ),
    "lens": (STORED, f"lens @states {CPU} --out @lens", written),
    "probes": (STORED, f"probes @states --cycles 0,7 {CPU} --out @probes", written),
    "figures": (
        (),
        f"figures {ON} --only table1,settling --scale 0.01 --no-static --workers 1 --out @figures",
        claims,
    ),
}

# Where a processor rounds otherwise, (relative, absolute) tolerance of floats. Training amplifies
# the last bit: AdamW's first steps follow the sign of gradients that are nearly 0, so that after 20
# steps of 0.003 weights are 0.002 apart. What is compared there are names, shapes, dtypes, counts
# and coarse losses.
TOLERANCE: Tolerance = (1e-3, 1e-4)
TOLERANCES: dict[str, Tolerance] = {"train": (0.1, 0.01)}


# which of two validations of that short training is the better is decided by less than this
CLOSE = "card.json/validation/step"


def compare(name: str, now: Tree, folder: Path = GOLDEN) -> list[str]:
    """What differs between a command's golden files and its tree of now, a line each."""
    kept_probe, tree = load(folder, name)
    golden = {moved(path): leaf for path, leaf in leaves({name: tree})}
    new = dict(leaves({name: now}))
    new = {p: leaf for p, leaf in new.items() if p in golden or not any(map(_under(p), ADDED))}
    if kept_probe == probe():
        return differences(golden, new)
    for leaf_of in (golden, new):
        for path in [p for p in leaf_of if p.rpartition("/")[2] in HASHES or p.endswith(CLOSE)]:
            del leaf_of[path]
    return differences(golden, new, TOLERANCES.get(name, TOLERANCE))


def moved(path: str, renamed: dict[str, str] | None = None) -> str:
    """Where a golden leaf is now, by `RENAMED`.

    >>> moved("losses/summary.json/n/0", {"*/summary.json/n": "*/summary.json/puzzles"})
    'losses/summary.json/puzzles/0'
    """
    for old, new in (RENAMED if renamed is None else renamed).items():
        if _under(path)(old):
            parts, pattern = path.split("/"), old.split("/")
            stars = iter([part for part, key in zip(parts, pattern, strict=False) if key == "*"])
            keys = [next(stars) if key == "*" else key for key in new.split("/")]
            return "/".join([*keys, *parts[len(pattern) :]])
    return path


def _under(path: str) -> Callable[[str], bool]:
    """Whether a path lies at or below a key path that may have stars."""
    parts = path.split("/")

    def is_under(pattern: str) -> bool:
        keys = pattern.split("/")
        same = (key in ("*", part) for key, part in zip(keys, parts, strict=False))
        return len(keys) <= len(parts) and all(same)

    return is_under


def main(words: list[str]) -> None:
    """Renew the golden files of some commands, or of all."""
    parser = argparse.ArgumentParser(description="Renew the golden files of test_unchanged.py.")
    parser.add_argument("--renew", action="store_true", help="overwrite the golden files")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    given = parser.parse_args(words)
    if unknown := set(given.commands) - COMMANDS.keys():
        parser.error(f"no command {sorted(unknown)[0]!r}; there are {', '.join(COMMANDS)}")
    if not given.renew:
        parser.error("nothing is written without --renew; pytest tests/test_unchanged.py compares")
    if not Path(core.__file__).is_relative_to(ROOT):
        parser.error(f"trm_interp is that of {core.__file__}: put {ROOT} into PYTHONPATH")
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for name in given.commands or COMMANDS:
            save(GOLDEN, name, world.tree(name))
            print(f"wrote {GOLDEN / name}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
