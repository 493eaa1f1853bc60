"""Section `sae` of bench.py: the stream against the step, memory, our gated step."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from trm_interp.core.memory import peak_memory

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
PUZZLES, BUFFER_MB = 24, 64


def sae(repeats: int, medians: Medians) -> Numbers:
    """Stream and step at width 96, expansion 32, batch 1 024, unless a GPU trains 512 -> 16 384."""
    peaks = {n: _peak_of_child(n) for n in (PUZZLES, 10 * PUZZLES)}
    return {
        **_stream(repeats, medians),
        f"peak_MB_at_{PUZZLES}_puzzles": peaks[PUZZLES],
        f"peak_MB_at_{10 * PUZZLES}_puzzles": peaks[10 * PUZZLES],
        **_gated(repeats, medians),
    }


def write_random_store(
    path: Path, n: int, d_model: int = 96, pos: int = 36, steps: int = 16
) -> int:
    """z_L of random numbers, as the recorder lays it out; bytes of one puzzle."""
    from trm_interp.recording.store import Site, StoreWriter, estimate_bytes, plan_shards

    dims = ("step", "h_cycle", "l_cycle", "pos", "d_model")
    site = Site("z_L", dims, (steps, 3, 6, pos, d_model))
    model = {"h_cycles": 3, "l_cycles": 6, "prefix": 0, "cells": pos, "d_model": d_model}
    meta = {"identity": {}, "model": model}
    rng = np.random.default_rng(0)
    one = estimate_bytes([site], 1)
    shard = plan_shards(one, 4, n)
    with StoreWriter.create(
        path, meta, [site], n_puzzles=n, n_steps=steps, n_cells=pos, shard_puzzles=shard
    ) as writer:
        while writer.done < n:
            writer.start_batch(4)
            for step in range(steps):
                values = rng.standard_normal((4, 3, 6, pos, d_model), np.float32)
                writer.write("z_L", values.astype(np.float16), step)
            boards = rng.integers(1, 8, (4, pos))
            zeros = np.zeros((4, steps))
            writer.end_batch(
                inputs=boards,
                labels=boards,
                predictions=np.tile(boards[:, None], (1, steps, 1)),
                solved=zeros.astype(bool),
                loss=zeros,
                q_halt=zeros,
                halt_step=np.full(4, -1),
                puzzle_id=np.arange(4) + writer.done,
            )
    return one


def _settings(folder: Path, **more: object):
    from trm_interp.sae.settings import TrainSAEConfig

    settings = {"stores": [folder / "store"], "out": folder / "sae", "site": "z_L"}
    settings |= {"buffer_mb": BUFFER_MB, "autocast": torch.cuda.is_available()}
    return TrainSAEConfig(**settings | more)  # type: ignore[arg-type]


def _stream(repeats: int, medians: Medians) -> Numbers:
    """Rows a second that the stream delivers, and that a training step consumes."""
    from trm_interp.sae.pool import open_pool
    from trm_interp.sae.stream import ActivationStream, measure_scaling
    from trm_interp.sae.train import Trainer, make_sae

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, batch = (512, 4096) if device.type == "cuda" else (96, 1024)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_store(folder / "store", PUZZLES, width, 97 if width == 512 else 36)
        config = _settings(folder, batch_size=batch, buffer_mb=2048 if width == 512 else BUFFER_MB)
        stream = ActivationStream(
            open_pool(config.stores, config.sites),
            np.arange(PUZZLES),
            batch_size=batch,
            buffer_bytes=config.buffer_mb * 10**6,
            seed=0,
            device=device,
        )
        with stream:
            stream.scaling = measure_scaling(stream.pool, [0, 1])
            trainer = Trainer(config, make_sae(config, width, device), stream)
            fixed = next(stream).clone()
            epoch = stream.rows_per_epoch // batch  # reading from disk is part of it

            def deliver() -> None:
                for _ in range(epoch):
                    next(stream)
                if device.type == "cuda":
                    torch.cuda.synchronize()

            def consume() -> None:
                trainer.step(fixed)
                if device.type == "cuda":
                    torch.cuda.synchronize()

            took = medians({"stream": deliver, "step": consume}, repeats)
    delivered, consumed = epoch * batch / took["stream"], batch / took["step"]
    return {
        "stream_rows_per_s": delivered,
        "step_rows_per_s": consumed,
        "stream_over_step": delivered / consumed,
    }


def _gated(repeats: int, medians: Medians) -> Numbers:
    """One optimizer-free step (loss and gradients) at 512 -> 16 384: sae-lens' own against ours."""
    from sae_lens import GatedTrainingSAE, GatedTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    from trm_interp.sae.gated import GatedSAE

    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 4096 if device == "cuda" else 256
    torch.manual_seed(0)
    settings = {"d_in": 512, "d_sae": 16_384, "device": device, "l1_coefficient": 1.0}
    theirs = GatedTrainingSAE(GatedTrainingSAEConfig(**settings))
    ours = GatedSAE(GatedTrainingSAEConfig(**settings), "saelens")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(batch, 512, device=device)
    step = TrainStepInput(x, {"l1": 1.0}, None, 0, False)

    def run(model: GatedTrainingSAE) -> float:
        model.zero_grad()
        loss = model.training_forward_pass(step).loss
        loss.backward()
        return float(loss.detach())  # waits for a GPU

    losses = run(theirs), run(ours)
    took = medians({"sae_lens": lambda: run(theirs), "ours": lambda: run(ours)}, repeats)
    return {
        "sae_lens_over_our_gated_step": took["sae_lens"] / took["ours"],
        "our_gated_step_s": took["ours"],
        "relative_difference_of_the_losses": abs(losses[0] - losses[1]) / losses[0],
    }


def _peak_of_child(n: int) -> float:
    """Peak resident memory in MB of a process that trains on a store of n puzzles."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_store(Path(folder) / "store", n)
        command = [sys.executable, __file__, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _train_only(folder: Path) -> None:
    from trm_interp.sae.train import train_sae

    config = _settings(
        folder, expansion=4, max_steps=40, stats_puzzles=4, save_every=1000, device="cpu"
    )
    train_sae(config, lambda line: None)
    print(peak_memory() / 1e6)


if __name__ == "__main__":
    _train_only(Path(sys.argv[1]))
