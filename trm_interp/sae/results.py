"""What the SAE commands measure, as dataclasses with the JSON form of their files."""

from dataclasses import dataclass
from typing import Any, Self

from trm_interp.analysis.estimates import Estimate, Number
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.records import AGAIN, Record, optional

EVERY_TICK = "every_tick"


@dataclass(frozen=True, kw_only=True)
class MeasuredOn(Record):
    """What a result was measured on. `ticks`: how many; `mismatch`: what was forced, in words;
    `view`: what was done to the rows, in words, None where they are as recorded."""

    sae: str
    site: str
    n_puzzles: int
    n_trained_on: int
    n_solved: int
    ticks: int
    store_sha256: str
    checkpoint_sha256: str | None
    mismatch: str | None
    d_in: int
    d_sae: int
    arch: str
    gated_variant: str | None
    view: str | None = optional()


# sae-eval


@dataclass(frozen=True, kw_only=True)
class OutcomeFit(Record):
    """How puzzles of one outcome are reconstructed."""

    n: int
    fvu: Estimate
    l0: float


@dataclass(frozen=True, kw_only=True)
class SiteFit(Record):
    """How one site of several is reconstructed: of its variance about its own mean row."""

    fvu: Estimate
    l0: float


@dataclass(frozen=True, kw_only=True)
class Baseline(Record):
    """Another code of the same rows: see `baselines`.

    `active`: numbers that it keeps of a row; `bits`: length of their description. `sae_less`: the
    FVU of the SAE less that of this code, of the same puzzles.
    """

    active: float
    bits: float
    fvu: Estimate
    sae_less: Estimate


@dataclass(frozen=True, kw_only=True)
class TickFit(Record):
    """How every tick is reconstructed; `tick` numbers them as in the run."""

    tick: list[int]
    fvu: list[Number]
    l0: list[float]


@dataclass(frozen=True, kw_only=True)
class DecoderCosines(Record):
    """See `measures.decoder_cosines`."""

    nearest_mean: float
    nearest_median: float
    nearest_99: float
    twins: float
    norm_spread: Number


@dataclass(frozen=True, kw_only=True)
class LoopedRun(Record):
    """One kind of run in the loop: accuracy of grids and cells, and loss in nats per cell."""

    by_step: dict[str, list[float]]
    exact: Estimate
    cells: Estimate
    loss: Estimate


@dataclass(frozen=True, kw_only=True)
class Spliced(Record):
    """Runs "clean", "sae", "zero" and "mean", and one of every baseline by its name, read after
    supervision step `read_at` (from 0). `recovered_by`: the loss that each baseline recovers over
    zero."""

    ticks: int
    read_at: int
    runs: dict[str, LoopedRun]
    recovered_over_zero: Estimate
    recovered_over_mean: Estimate
    recovered_by: dict[str, Estimate] | None = optional()


@dataclass(frozen=True, kw_only=True)
class InTheLoop(Record):
    """What reconstructions in the recursion cost, by where they were spliced in: EVERY_TICK, and
    `at_tick` where one was asked for. `mismatch`: what was forced of the model, in words."""

    mismatch: str | None
    spliced: dict[str, Spliced]


def at_tick(tick: int) -> str:
    """Name of a splice at one tick.

    >>> at_tick(60)
    'tick_60'
    """
    return f"tick_{tick}"


@dataclass(frozen=True, kw_only=True)
class SAEMeasures(MeasuredOn):
    """What `sae-eval` measures: see `measures.measures`; `loop` where it was spliced.

    `by_site`: where there are several sites. `bits`: length of the description of a row's code, as
    `baselines.description_bits` has it; `baselines`: other codes of the same rows, by name.
    """

    rows: int
    fvu: Estimate
    l0: float
    dead: float
    dense: float
    decoder: DecoderCosines
    by_outcome: dict[str, OutcomeFit]
    by_tick: TickFit
    by_site: dict[str, SiteFit] | None = optional()
    bits: float | None = optional()
    baselines: dict[str, Baseline] | None = optional()
    loop: InTheLoop | None = optional()

    @property
    def spliced_everywhere(self) -> Spliced | None:
        """The loop with reconstructions at every tick; None where it was not run."""
        return self.loop.spliced.get(EVERY_TICK) if self.loop else None

    def to_json(self) -> dict[str, Any]:
        """As in the file: splices have keys in `loop` itself."""
        if self.loop is None:
            return super().to_json()
        spliced = {name: one.to_json() for name, one in self.loop.spliced.items()}
        return super().to_json() | {"loop": {"mismatch": self.loop.mismatch, **spliced}}

    @classmethod
    def from_json(
        cls, raw: Any, name: str = "", error: type[UserError] = UserError, advice: str = AGAIN
    ) -> Self:
        if isinstance(raw, dict) and isinstance(loop := raw.get("loop"), dict):
            spliced = {key: value for key, value in loop.items() if key != "mismatch"}
            loop = {"mismatch": loop.get("mismatch"), "spliced": spliced}
            raw = raw | {"loop": loop}
        return super().from_json(raw, name, error, advice)


# steer


@dataclass(frozen=True, kw_only=True)
class Effect(Record):
    """Change of exact accuracy, of the share of cells right, and of the loss in nats per cell."""

    exact: Estimate
    cells: Estimate
    loss: Estimate


@dataclass(frozen=True, kw_only=True)
class FeatureEffect(Record):
    """Changes at the last step, as in `Effect`, and after the step of the last intervention.

    `value`: the activation that was set or added; not used by ablate.
    """

    feature: int
    value: float
    exact: Estimate
    cells: Estimate
    loss: Estimate
    after_last_change: Effect


@dataclass(frozen=True, kw_only=True)
class Steering(MeasuredOn):
    """The effects of a feature and of its controls: see `steer.run`."""

    model_mismatch: str | None
    mode: str
    relative_value: float | None
    steps: int
    ticks_changed: int
    last_change: int
    cells_changed: str
    clean: dict[str, float]
    feature: FeatureEffect
    controls: list[FeatureEffect]
    rank_p: float


# circuits


@dataclass(frozen=True, kw_only=True)
class CircuitOf(Record):
    """Of the `n` runs of one fate, `n_solved` of which are solved: how many `edges` were measured,
    the weights of how many have an interval over puzzles `clear` of 0, how many of the `strongest`
    of all go from a feature `to_itself`; of the `checked` ones how many are `confirmed`, by a loss
    of the same sign as the weight that no matched random feature brings about. `agreement`: rank
    correlation of weights and losses over all targets of the ablated sources, mean over puzzles;
    None where nothing was ablated."""

    n: int
    n_solved: int
    edges: int
    clear: int
    strongest: int
    to_itself: int
    checked: int
    confirmed: int
    agreement: Estimate | None = optional()


@dataclass(frozen=True, kw_only=True)
class CircuitsSummary(MeasuredOn):
    """Edges from `features` to `features`, `lag` network evaluations later: see `circuits`.

    `tolerance`: RMS change over the last of the `steps` up to which a run is settled."""

    model_mismatch: str | None
    steps: int
    lag: int
    features: list[int]
    source_ticks: list[int]
    tolerance: float
    fates: dict[str, CircuitOf]


# features


@dataclass(frozen=True, kw_only=True)
class FeatureMedians(Record):
    """Medians over features by the outcome of the puzzles, None where no feature has the number:
    `transient` and `period` in network evaluations, `recurrence` and `drift` as in
    `table.feature_table`."""

    transient_solved: Number
    transient_failed: Number
    recurrence_solved: Number
    recurrence_failed: Number
    period_solved: Number
    period_failed: Number
    drift_solved: Number
    drift_failed: Number


@dataclass(frozen=True, kw_only=True)
class MostActive(Record):
    """Of the `n` features with the largest mean activation: see `table.summarise`."""

    n: int
    median: FeatureMedians
    recurring_solved: int
    recurring_failed: int


@dataclass(frozen=True, kw_only=True)
class RunsOfFeatures(Record):
    """Of the most active features, a number a run, None where none fires (of `transient`) or the
    run is too short: the shares that recur and that may (`dynamics.Dynamics`), and their median
    transient in network evaluations."""

    recurs: list[Number]
    may_recur: list[Number]
    transient: list[Number]


@dataclass(frozen=True, kw_only=True)
class RecurrenceTest(Record):
    """How recurrence was tested: against which `null` with how many `draws` of each kind, over how
    many `h_cycles` at the end of a run; and what the most active features do in the runs of each
    outcome."""

    null: str
    draws: int
    h_cycles: int
    solved: RunsOfFeatures
    failed: RunsOfFeatures


@dataclass(frozen=True, kw_only=True)
class FeaturesSummary(MeasuredOn):
    """Counts and medians over features: see `table.summarise`.

    `recurring_*`: how many recur at a false discovery rate of 5 % over the features that fire.
    `recurrence_test`: None in files of earlier versions, whose `recurring_*` count intervals of the
    excess over series with shuffled phases, which trends and random walks pass too.
    """

    alive: int
    dead: float
    median: FeatureMedians
    recurring_solved: int
    recurring_failed: int
    most_active: MostActive
    separating: int
    separating_tests: int
    separating_tests_by_chance: int
    leading: int
    above_control: int
    solved: int
    failed: int
    recurrence_test: RecurrenceTest | None = optional()
