"""How fast the core is, as ratios within one run (medians of interleaved repetitions).

    python experiments/bench.py                      # everything that this machine can run
    python experiments/bench.py --only recording,puzzles --repeats 9 --out bench.json

Sections: recording (cost of recording against plain inference, peak memory at 1x and 10x puzzles),
paths (compiled against eager, bfloat16 against float32, share of the machine's matrix rate),
inference (one evaluation on a CPU: shares of products, gates, norms and copies, and what is saved
by casting weights once and by overwriting; whether compiling pays says `paths`: a processor of
another kind, such as one with AMX, shows with `--only inference,paths`),
mixing (token mixing with the weight's rows aligned in memory, against rows as they are; on a GPU
also the fused mixer against the compiled one),
puzzles (generators and solver, one core), sae (stream against step, memory, our gated step against
sae-lens' own), pca (streamed components against reading), architectures (each against a TRM of
equal width; recording against plain inference), basins (starts of one puzzle against plain
inference), dynamics (8 Lyapunov exponents over plain inference of the same batch), search
(evaluations saved at equal accuracy, speed against plain inference), explore (how soon the live
explorer answers), patching (cells of patched states against plain inference, attribution of all
evaluations against forward runs), grids (mazes a second, symmetries, evaluation and memory of 900
cells), shards (two processes against one, memory at 1x and 10x the starts), jobs (what the engine
of sweep and figures adds to a job), cuda (training and inference of the 5 M model).
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_architectures import architectures
from bench_basins import basins
from bench_dynamics import dynamics
from bench_explore import explore
from bench_grids import grids
from bench_inference import inference
from bench_jobs import jobs
from bench_mixing import mixing
from bench_patching import patching
from bench_pca import pca
from bench_sae import sae
from bench_search import search_section
from bench_shards import shards

from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.infer import run_batch
from trm_interp.core.memory import keep_freed_memory, peak_memory
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.layers import weights_held
from trm_interp.core.models.trm import TRM
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.files import write_json
from trm_interp.subjects.opening import test_puzzles
from trm_interp.subjects.settings import CollectConfig, default_checkpoint
from trm_interp.tasks.registry import load_puzzles

Numbers = dict[str, float]


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> Numbers:
    """Median seconds of each, taking turns so that a slow moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm-up: compilation, allocation, caches
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matrix_rate(dtype: torch.dtype, device: str, n: int = 2048, repeats: int = 9) -> float:
    """FLOP/s of a large square matrix product on this machine."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 / medians({"mm": product}, repeats)["mm"]


# recording


def recording(repeats: int, batch: int = 32) -> Numbers:
    """Recording z_L and z_H of all 336 evaluations to disk, against plain inference."""
    from trm_interp.recording.collect import record_puzzles

    checkpoint = load_checkpoint(default_checkpoint())
    puzzles = load_puzzles(test_puzzles(checkpoint), limit=2 * batch)
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)

    def plain() -> None:
        for start in range(0, len(puzzles), batch):
            at = slice(start, start + batch)
            run_batch(checkpoint.model, inputs[at], labels[at], 16)

    with tempfile.TemporaryDirectory() as folder:
        config = CollectConfig(out=Path(folder) / "store", batch_size=batch, overwrite=True)

        def record() -> None:
            record_puzzles(checkpoint, puzzles, config, {}, tell=lambda line: None)

        took = medians({"plain": plain, "recording": record}, repeats)
    peaks = {n: _peak_of_child(n) for n in (32, 320)}
    return {
        "plain_puzzles_per_s": len(puzzles) / took["plain"],
        "recording_over_plain": took["recording"] / took["plain"],
        "peak_MB_at_32_puzzles": peaks[32],
        "peak_MB_at_320_puzzles": peaks[320],
    }


def _peak_of_child(n: int) -> float:
    """Peak resident memory in MB of a process that records n puzzles."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--record-only", str(n), folder]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _record_only(n: int, folder: str) -> None:
    from trm_interp.recording.collect import collect

    puzzles = test_puzzles(load_checkpoint(default_checkpoint()))
    out = Path(folder) / "store"
    ckpt = str(default_checkpoint())
    config = CollectConfig(
        ckpt=ckpt, puzzles=puzzles, out=out, steps="4", limit=n, batch_size=16, device="cpu"
    )
    collect(config, lambda line: None)
    print(peak_memory() / 1e6)


# execution paths


def paths(repeats: int) -> dict[str, Numbers]:
    """One supervision step on the CPU, for the default checkpoint and for a random 5 M model."""
    default = load_checkpoint(default_checkpoint()).model
    published = TRM(TRMConfig(), torch.Generator().manual_seed(0)).eval()
    return {
        "default": _paths(default, 64, repeats),
        "published_5M": _paths(published, 8, repeats),
    }


@torch.no_grad()
def _paths(model: RecursiveModel, batch: int, repeats: int) -> Numbers:
    tokens = torch.randint(1, model.config.vocab, (batch, model.config.cells))
    compiled = copy.deepcopy(model)
    for network in compiled.networks():
        network.compile()
    runs: dict[str, Callable[[], object]] = {}
    for name, network in (("eager", model), ("compiled", compiled)):
        for dtype in (torch.float32, torch.bfloat16):
            x = network.embed(tokens, dtype)
            state = network.initial_state(x)
            kind = "bfloat16" if dtype == torch.bfloat16 else "float32"

            def step(network: RecursiveModel = network, x: Any = x, state: Any = state) -> None:
                with weights_held(network, x.dtype):  # as a run does
                    network.advance(state, x)

            runs[f"{name}_{kind}"] = step
    took = medians(runs, repeats)
    flops = batch * step_flops(model.config)
    rates = {"float32": matrix_rate(torch.float32, "cpu")}
    rates["bfloat16"] = matrix_rate(torch.bfloat16, "cpu")
    return {
        "eager_over_compiled_float32": took["eager_float32"] / took["compiled_float32"],
        "eager_over_compiled_bfloat16": took["eager_bfloat16"] / took["compiled_bfloat16"],
        "float32_over_bfloat16_eager": took["eager_float32"] / took["eager_bfloat16"],
        "float32_over_bfloat16_compiled": took["compiled_float32"] / took["compiled_bfloat16"],
        **{f"GFLOPs_{name}": flops / seconds / 1e9 for name, seconds in took.items()},
        **{f"matrix_GFLOPs_{kind}": rate / 1e9 for kind, rate in rates.items()},
        **{
            f"share_of_matrix_rate_{name}": flops / seconds / rates[name.split("_")[1]]
            for name, seconds in took.items()
        },
    }


# puzzles


def puzzles(repeats: int) -> Numbers:
    """Per core and second; all of it runs on one thread."""
    from trm_interp.tasks.sudoku.forge.generate import generate
    from trm_interp.tasks.sudoku.forge.solver import solve_batch
    from trm_interp.tasks.sudoku.grid import SHAPES

    random9, _ = generate(SHAPES[9], 2000, seed=0)
    hard = _hard_puzzles()
    runs: dict[str, Callable[[], object]] = {
        "generate_6x6": lambda: generate(SHAPES[6], 4000, seed=1),
        "generate_6x6_harder_of_8": lambda: generate(SHAPES[6], 500, seed=1, harder_of=8),
        "generate_9x9": lambda: generate(SHAPES[9], 1000, seed=1),
        "solve_random_minimal": lambda: solve_batch(random9, limit=2),
        "solve_hard": lambda: solve_batch(hard, limit=2),
    }
    sizes = [4000, 500, 1000, len(random9), len(hard)]
    few_clues = _listed("clue17")
    if len(few_clues):
        many = np.concatenate([few_clues] * 20)
        runs["solve_17_clues"] = lambda: solve_batch(many, limit=2)
        sizes.append(len(many))
    took = medians(runs, repeats)
    rates = {
        f"{name}_per_s": n / seconds for (name, seconds), n in zip(took.items(), sizes, strict=True)
    }
    return {**rates, **_lineages()}


def _lineages(n: int = 40) -> Numbers:
    """Puzzles per core minute by the E they have to come to, and core seconds for the preset's mix.

    Processor time, so that a busy machine counts less; lineages 0 to n - 1 of seed 0.
    """
    from dataclasses import replace

    from trm_interp.tasks.sudoku.forge.presets import PRESETS
    from trm_interp.tasks.sudoku.forge.walk import Walk, grow

    mix = PRESETS["sudoku9-hard"].walk  # type: ignore[union-attr]
    grow(mix, 0)  # compiles

    def seconds_each(walk: Walk) -> tuple[float, float]:
        began = time.process_time()
        reached = sum(grow(walk, seed).reached for seed in range(n))
        spent = time.process_time() - began
        return spent / n, 60 * reached / spent

    lineages: Numbers = {}
    for energy in (150, 175, 195):
        walk = replace(mix, mean=energy, sd=0, low=0, high=energy, plain_every=0)
        lineages[f"grow_E_{energy}_per_core_min"] = seconds_each(walk)[1]
    lineages["grow_hard_part_core_s"] = seconds_each(replace(mix, plain_every=0))[0]
    lineages["grow_mix_core_s"] = seconds_each(mix)[0]
    return lineages


def _hard_puzzles() -> np.ndarray:
    """The hardest at hand: forum-hardest from a Sudoku-Extreme file, else of 20 000 random ones."""
    from trm_interp.tasks.sudoku.forge.generate import generate
    from trm_interp.tasks.sudoku.grid import SHAPES

    listed = _listed("forum_hardest_11plus")[:2000]
    return listed if len(listed) else generate(SHAPES[9], 500, seed=2, harder_of=40)[0]


def _listed(source: str) -> np.ndarray:
    """Puzzles of one source of a Sudoku-Extreme file, where one is at hand; none without it."""
    from trm_interp.tasks.sudoku.grid import parse

    extreme = Path(__file__).resolve().parents[2] / "shared" / "puzzles" / "extreme_test.csv"
    if not extreme.exists():
        return np.zeros((0, 81), np.uint8)
    rows = (line.split(",") for line in extreme.read_text().splitlines())
    return np.stack([parse(row[1]) for row in rows if row[0] == source])


# CUDA


def cuda(repeats: int, batch: int = 768) -> Numbers:
    """The flagship on a GPU: training at batch 768, inference, and the GPU's matrix rate.

    The three kinds of training run one after another: each needs the memory of the others.
    """
    from trm_interp.tasks.sudoku.augment import augment
    from trm_interp.tasks.sudoku.grid import SHAPES

    config = TRMConfig(prefix=0)
    tokens = torch.randint(1, 11, (1000, 81))
    labels = tokens.clamp(min=2)
    turn = partial(augment, shape=SHAPES[9])
    data = TrainData(tokens, labels, tokens[:1], labels[:1], turn)
    steps_per_s: Numbers = {}
    kinds = {"eager": (False, False), "compiled": (True, False), "graphed": (True, True)}
    for kind, (compiled, graphs) in kinds.items():
        settings = TrainConfig(batch_size=batch, dtype="bfloat16", compile=compiled, graphs=graphs)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(config, settings, data, Path(folder), "cuda")

            def ten(trainer: Trainer = trainer) -> None:
                for _ in range(10):
                    trainer.step()
                torch.cuda.synchronize()

            steps_per_s[kind] = 10 / medians({kind: ten}, repeats)[kind]
    model = TRM(config).cuda().eval()
    model.net.compile()
    inputs = torch.randint(1, 11, (2048, 81))

    def infer() -> None:
        run_batch(model, inputs, inputs, 16, dtype=torch.bfloat16)

    rate = matrix_rate(torch.bfloat16, "cuda", n=8192)
    flops = batch * step_flops(config, training=True)
    return {
        **{f"train_steps_per_s_{kind}": value for kind, value in steps_per_s.items()},
        "train_over_eager": max(steps_per_s.values()) / steps_per_s["eager"],
        "train_share_of_matrix_rate": max(steps_per_s.values()) * flops / rate,
        "train_TFLOP_per_step": flops / 1e12,
        "matrix_TFLOPs_bfloat16": rate / 1e12,
        "inference_puzzles_per_s": len(inputs) / medians({"run": infer}, repeats)["run"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="comma-separated sections (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    parser.add_argument("--record-only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()
    if args.record_only:
        _record_only(int(args.record_only[0]), args.record_only[1])
        return
    sections: dict[str, Callable[[int], Any]] = {
        "recording": recording,
        "paths": paths,
        "puzzles": puzzles,
        "inference": lambda repeats: inference(repeats, medians),
        "mixing": lambda repeats: mixing(repeats, medians),
        "sae": lambda repeats: sae(repeats, medians),
        "pca": lambda repeats: pca(repeats, medians),
        "architectures": architectures,
        "basins": lambda repeats: basins(repeats, medians),
        "dynamics": lambda repeats: dynamics(repeats, medians),
        "search": lambda repeats: search_section(repeats, medians),
        "explore": explore,
        "jobs": jobs,
        "patching": lambda repeats: patching(repeats, medians),
        "grids": lambda repeats: grids(repeats, medians),
        "shards": shards,
    }
    if torch.cuda.is_available():
        sections["cuda"] = cuda
    chosen = args.only.split(",") if args.only else list(sections)
    if unknown := set(chosen) - sections.keys():
        parser.error(f"no section {', '.join(unknown)} here; there are {', '.join(sections)}")
    report: dict[str, Any] = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }
    }
    for name in chosen:
        report[name] = sections[name](args.repeats)
        print(json.dumps({name: report[name]}, indent=1), flush=True)
    if args.out:
        write_json(args.out, report)
        print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
