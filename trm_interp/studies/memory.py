"""Memory that a study would need, checked before it begins: too much is an error of one line."""

from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shards import is_shard
from trm_interp.studies.causal_settings import SpreadConfig, UsedConfig
from trm_interp.studies.settings import (
    BasinsConfig,
    LossesConfig,
    OriginsConfig,
    OutcomesConfig,
    RobustnessConfig,
    SettlingConfig,
    StabilityConfig,
    StitchConfig,
    TraceConfig,
)
from trm_interp.studies.starts import COORDINATES, MOST_STATES
from trm_interp.studies.subject import Subject
from trm_interp.studies.traced import inside_sites

COPIES = 2  # of what is joined from batches, or multiplied
NAME_BYTES = 1000  # of a hook point, with its place and the cells that name it
CONVENTIONS = 6  # in which losses are measured, float64 each


def for_outcomes(subject: Subject, config: OutcomesConfig) -> None:
    n, cells = len(subject.puzzles), subject.model.config.cells
    need = COPIES * n * config.steps * (cells + 9)  # grids, and two numbers and a flag
    need *= not is_shard()  # which keeps none
    require_memory(need, f"{config.steps} steps of {n} puzzles", "lower --steps or --limit")


def for_losses(subject: Subject, config: LossesConfig) -> None:
    n, model = len(subject.puzzles), subject.model.config
    cycles, batch = config.steps * model.h_cycles, min(config.batch_size, n)
    logits = 4 * batch * cycles * model.cells * model.vocab
    kept = 0 if is_shard() else 8 * CONVENTIONS * n * cycles
    need = COPIES * (logits + kept)
    what = f"the logits of {config.steps} steps of {batch} puzzles"
    require_memory(need, what, "lower --steps or --batch-size")


def for_settling(subject: Subject, config: SettlingConfig, back: int, divide: bool) -> None:
    """`divide`: whether shards divide the short runs, of which they then keep none."""
    n, model = len(subject.puzzles), subject.model.config
    numbers = 4 * _numbers(subject)
    batch, cycles = min(config.batch_size, n), config.steps * model.h_cycles
    held = batch * numbers * (back * model.h_cycles + 4)
    if config.long and not (divide and is_shard()):
        batch_long = min(config.batch_size, n, config.long_limit)
        held = max(held, batch_long * numbers * (back * model.h_cycles + 4))
    kept = 0 if divide and is_shard() else COPIES * 8 * n * (config.steps + cycles)
    need = held + kept
    what = f"the states of {batch} runs and {config.steps} steps of {n}"
    require_memory(need, what, "lower --batch-size or --steps")


def for_stability(subject: Subject, config: StabilityConfig) -> None:
    runs = min(config.batch_size, config.sample, len(subject.puzzles))
    size = 4 if config.dtype == "float32" else 8
    need = COPIES * size * runs * (config.k + 1) * _numbers(subject)
    advice = "lower --exponents or --batch-size"
    require_memory(need, f"{config.k} exponents of {runs} runs", advice)


def for_robustness(subject: Subject, config: RobustnessConfig) -> None:
    """Of all ends their directions, of a batch the tangents or the pushed states."""
    ends = min(config.sample, config.limit, len(subject.puzzles))
    numbers, vectors = _numbers(subject), config.leading + 3
    directions = COPIES * 4 * ends * (config.draws + 2 * config.leading + 4) * numbers
    tangents = COPIES * 4 * min(config.batch_size, ends) * vectors * numbers
    pushes = ends * len(config.sizes) * (config.draws + 2 * config.leading)
    need = directions + tangents + 4 * COPIES * config.batch_size * numbers + 32 * pushes
    what = f"{config.draws} directions of {ends} ends"
    require_memory(need, what, "lower --draws, --leading, --sample or --batch-size")
    read = COPIES * len(subject.puzzles) * config.steps * (subject.model.config.cells + 9)
    require_memory(read, f"{config.steps} steps of the puzzles", "lower --steps or --limit")


def for_basins(subject: Subject, config: BasinsConfig) -> None:
    """Of one puzzle: all starts with their ends (but in a shard, which keeps those of a batch), or
    a whole plane. Planes and paths come with the merge, which could not be made without them."""
    model, n_targets = subject.model.config, len(subject.model.state_names)
    run, ended = config.steps * (model.cells + 8), model.cells + 24
    whole = config.ends == "states" or (
        config.ends == "auto" and 2 * config.starts * _numbers(subject) <= MOST_STATES
    )
    end = 2 * _numbers(subject) if whole else 4 * COORDINATES
    moved = 4 * (1 if config.shared else model.positions) * model.d_model
    each = COPIES * (ended + end + n_targets * moved)
    if is_shard():
        batch = min(config.batch_size, 1 + config.starts)
        require_memory(batch * each, f"batches of {batch} starts", "lower --batch-size")
    else:
        advice = "lower --starts, or give --ends coordinates"
        require_memory((1 + config.starts) * each, f"{config.starts} starts", advice)
        order, what = 8 * config.starts * config.neighbours, f"{config.neighbours} neighbours"
        require_memory(COPIES * order, f"{what} a start", "lower --neighbours")
    path = 4 * (1 + min(config.shown, config.starts)) * (config.steps + 1) * _numbers(subject)
    require_memory(path, f"the paths of {config.shown} starts", "lower --shown or --steps")
    plane = config.slice**2 * (COPIES * run + 8 * config.steps)
    require_memory(plane, f"a plane of {config.slice} x {config.slice} starts", "lower --slice")
    require_memory(8 * config.shuffles, f"{config.shuffles} shuffles", "lower --shuffles")


def for_origins(subject: Subject, config: OriginsConfig) -> None:
    """Of a batch: states with their noise, and the answers of its runs."""
    runs = min(config.batch_size, config.copies * config.starts)
    deep = min(config.batch_size, len(subject.puzzles)) * config.steps * config.starts
    read = COPIES * max(runs * config.steps, deep) * (subject.model.config.cells + 9)
    need = read + COPIES * 4 * runs * _numbers(subject) + 24 * len(subject.puzzles) * runs
    require_memory(need, f"batches of {runs} runs", "lower --batch-size, --steps or --starts")


def for_trace(subject: Subject, config: TraceConfig) -> None:
    """Of all starts whether they solve, the names of all hook points, and of a batch of pairs:
    three recorded runs, with the states in which reruns begin, the graph of one supervision step,
    and a batch of reruns."""
    model, cls, n = subject.model.config, type(subject.model), len(subject.puzzles)
    advice = "lower --starts or --limit"
    require_memory(COPIES * n * config.starts, f"{config.starts} starts of {n} puzzles", advice)
    pairs = max(1, min(config.pairs, config.batch_size // 8))
    state = 4 * model.positions * model.d_model
    evaluations = config.steps * model.schedule.evaluations
    names = evaluations * (1 + len(cls.site_names(model)))
    require_memory(NAME_BYTES * names, f"the names of {names} hook points", "lower --steps")
    moments = config.steps * (model.h_cycles if config.every == "h_cycle" else 1)
    inside = len(inside_sites(subject.model, config)) * evaluations  # at most
    hooks = moments * len(subject.model.state_names) + inside
    kept = 3 * pairs * (2 * hooks + config.steps * len(subject.model.state_names)) * state
    graph = pairs * model.schedule.evaluations * cls.tensors_kept(model) * state
    reruns = COPIES * 4 * config.batch_size * _numbers(subject)
    what = f"recorded runs of {pairs} pairs at {hooks} hook points"
    advice = "lower --steps, --batch-size or --sites"
    require_memory(kept + graph + reruns + NAME_BYTES * names, what, advice)


def for_used(subject: Subject, config: UsedConfig) -> None:
    """Of a batch recorded runs at the ends of steps; of the puzzles that are fitted to, by every
    shard, the asked cells' states."""
    model = subject.model.config
    n = max(1, round((1 - config.held_out) * len(subject.puzzles)))
    states, runs = len(subject.model.state_names), min(n, max(1, config.batch_size // 4))
    state = 4 * model.positions * model.d_model
    kept = runs * state * states * 2 * config.steps
    rows = COPIES * n * state * states * len(config.steps_done)
    reruns = COPIES * 4 * config.batch_size * _numbers(subject)
    what = f"recorded runs of {runs} puzzles and the states of {n}"
    advice = "lower --limit, --steps, --moments or --batch-size"
    require_memory(kept + rows + reruns, what, advice)
    drawn = 8 * config.random * (model.d_model + n * model.cells) * len(config.steps_done)
    require_memory(drawn, f"{config.random} random draws", "lower --random")


def for_spread(subject: Subject, config: SpreadConfig) -> None:
    """Of all changes their relations and (but in a shard, which keeps that of one batch) their
    influence; of a batch the states of its runs."""
    model = subject.model.config
    n = len(subject.puzzles) * min(config.n_cells, model.cells)
    kinds = 10  # relations, at least as many as tasks have
    evaluations = config.steps * model.schedule.evaluations
    kept = min(config.batch_size, n) if is_shard() else n
    held = kinds * (n * model.positions + 8 * COPIES * evaluations * kept)
    states = COPIES * 4 * min(config.batch_size, 2 * n) * _numbers(subject)
    what = f"{config.steps} steps of {n} changes"
    require_memory(held + states, what, "lower --limit, --cells or --steps")


def for_stitch(source: Subject, target: Subject, config: StitchConfig) -> None:
    """States of all puzzles, and what B keeps for the backward pass of a batch."""
    a, b = source.model.config, target.model.config
    handed = 4 * (config.fit + config.limit) * a.cells * a.d_model
    per_evaluation = type(target.model).tensors_kept(b) * b.positions * b.d_model
    evaluations = config.then * b.schedule.evaluations
    need = handed + 4 * config.batch_size * evaluations * per_evaluation
    require_memory(need, "the states that are handed over", "lower --batch-size, --fit or --then")


def _numbers(subject: Subject) -> int:
    """Of all states of one run."""
    model = subject.model
    return len(model.state_names) * model.config.positions * model.config.d_model
