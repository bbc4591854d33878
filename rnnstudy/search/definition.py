"""What a search is: candidates that an Optuna sampler proposes, how each is judged, and on which seeds.

An experiment file that searches defines `sample` and `SEARCH` in place of `runs(scale)`:

    SEARCH = Search(trials=20)

    def sample(trial, scale):
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        return Run(task=..., cell=LSTM(), training=Training(learning_rate=rate))

or, for several studies, `searches(scale)`, which gives a `Search` with a name and a `sample` of its own for each.
"""

import inspect
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from rnnstudy.run import Run
from rnnstudy.spec import Spec, SpecError, at_least, digest

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


SMALLEST_ERROR = 1e-6
"""An error below this counts as this when its logarithm is taken: no sequence wrong has no logarithm."""

Objective = Literal["error", "log10_error", "steps_to_solve"]


@dataclass(frozen=True)
class RunSummary:
    """How one run of a candidate went, on its validation sequences; the test sequences are never looked at.

    Attributes:
        error: validation error at the last check; infinite for a run that diverged.
        steps_to_solve: see `Outcome`; None when it did not solve its task.
        steps: the most updates it could make.
    """

    error: float
    steps_to_solve: int | None
    steps: int


def tpe(seed: int) -> "BaseSampler":
    """Optuna's tree-structured Parzen estimator: multivariate, and counting candidates in training as bad ones (the
    constant liar), so that those asked for together lie apart."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


SEEDS_APART = 1_000_003
"""Between the seed of a batch and that of what completes one whose asking was cut short."""


class Search(Spec):
    """One study: how its candidates are proposed, and what each is worth. The least value wins.

    Fields:
        name: tells the studies of one file apart; may be empty where there is one.
        sample: `sample(trial, scale) -> Run`; None for the file's own function of that name.
        objective: what a candidate is worth, from its runs on all `seeds`:
            `error`: the median over seeds of the validation error at the last check, infinite for a diverged run;
            `log10_error`: log10 of that median, which counts as 10⁻⁶ where it is below;
            `steps_to_solve`: the median over seeds of the updates made before the first of two validation checks in a
            row that met the task's criterion; a run that did not solve its task counts twice its budget.
        trials: how many candidates are judged; pruned ones count.
        together: how many candidates are asked for at once; those that share shapes train as one population.
        seeds: each candidate is trained once with each; they decide weights and data, so that candidates and studies
            are compared on the same sequences.
        fresh_seeds: the winner is trained again with these, none of which the search has seen.
        sampler: an Optuna sampler, or a function that makes one from a seed.
        pruner: an Optuna pruner; None to prune nothing. It sees, at each check, the median over seeds of the validation
            error (its log10 where that is the objective).
        seed: where the sampler's seeds begin.
    """

    name: str = ""
    sample: Callable[..., Run] | None = None
    objective: Objective = "log10_error"
    trials: Annotated[int, at_least(1)]
    together: Annotated[int, at_least(1)] = 8
    seeds: tuple[Annotated[int, at_least(0)], ...] = (0, 1, 2)
    fresh_seeds: tuple[Annotated[int, at_least(0)], ...] = (100, 101, 102, 103, 104, 105, 106, 107, 108, 109)
    sampler: object = tpe
    pruner: object = None
    seed: Annotated[int, at_least(0)] = 0

    def check(self) -> None:
        if not self.seeds:
            raise SpecError("Search.seeds is empty; a candidate needs at least one seed to be judged on")
        for field in ("seeds", "fresh_seeds"):
            seeds = getattr(self, field)
            if len(set(seeds)) < len(seeds):
                raise SpecError(f"Search.{field} names a seed twice: {seeds}")
        if both := sorted(set(self.seeds) & set(self.fresh_seeds)):
            raise SpecError(f"Search.fresh_seeds holds {both[0]}, which the search itself uses; take others")
        if not _is_optunas(self.sampler, "BaseSampler") and not inspect.isroutine(self.sampler):
            raise SpecError(
                f"Search.sampler is {self.sampler!r}; it takes an Optuna sampler such as TPESampler(seed=0), or a "
                "function that makes one from a seed"
            )
        if self.pruner is not None and not _is_optunas(self.pruner, "BasePruner"):
            raise SpecError(f"Search.pruner is {self.pruner!r}; it takes an Optuna pruner such as MedianPruner()")

    def sampler_for(self, batch: int, again: bool, queued: int = 0) -> "BaseSampler":
        """The sampler for one batch. A function gets a seed of its own for each; an object goes on with its stream,
        and in a process that takes a study up `again`, with a random one instead of repeating itself.

        Of a batch whose asking was cut short, `queued` candidates are there already. What comes besides is drawn with
        another seed: the batch's own would begin with those very candidates.
        """
        from optuna.samplers import BaseSampler

        if not isinstance(self.sampler, BaseSampler):
            made = self.sampler(self.seed + batch + SEEDS_APART * queued)  # type: ignore[operator]
            if not isinstance(made, BaseSampler):
                raise SpecError(f"Search.sampler made {made!r} from a seed; it must make an Optuna sampler")
            return made
        if again:
            self.sampler.reseed_rng()
        return self.sampler

    def made_pruner(self) -> "BasePruner":
        from optuna.pruners import BasePruner, NopPruner

        return self.pruner if isinstance(self.pruner, BasePruner) else NopPruner()

    def seen_by_pruner(self, errors: Sequence[float]) -> float:
        """What the pruner is told of a candidate whose runs have these validation errors."""
        return _median_error(errors, logarithmic=self.objective == "log10_error")

    def worth(self, courses: Sequence[RunSummary]) -> float:
        """The objective of a candidate, from its runs on all seeds."""
        if self.objective == "steps_to_solve":
            steps = [2 * one.steps if one.steps_to_solve is None else one.steps_to_solve for one in courses]
            return float(statistics.median(steps))
        return self.seen_by_pruner([one.error for one in courses])

    @property
    def meaning(self) -> str:
        """Hash of what makes the values of two trials comparable: a study keeps it."""
        return digest([self.objective, list(self.seeds)])


def _is_optunas(value: object, base: Literal["BaseSampler", "BasePruner"]) -> bool:
    """Whether `value` is one of Optuna's. Where Optuna was never imported, nothing is: a worker need not load it."""
    module = sys.modules.get("optuna.samplers" if base == "BaseSampler" else "optuna.pruners")
    return module is not None and isinstance(value, vars(module)[base])


def _median_error(errors: Sequence[float], logarithmic: bool) -> float:
    median = float(statistics.median(errors))
    return math.log10(max(median, SMALLEST_ERROR)) if logarithmic else median


def candidates(run: Run, seeds: Sequence[int]) -> tuple[Run, ...]:
    """`run` with each seed, for weights and data alike: equal seeds see equal sequences whatever the candidate."""
    return tuple(run.replace(seed=seed, data_seed=None) for seed in seeds)
