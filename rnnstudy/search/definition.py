"""The definition of a search: how candidates are proposed, how they are compared, and on which seeds they train.

An experiment file with a search defines `sample` and `SEARCH` instead of `runs(scale)`:

    SEARCH = Search(trials=20)

    def sample(trial, scale):
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        return Run(task=..., cell=LSTM(), training=Training(learning_rate=rate))

For several studies it defines `searches(scale)`, which returns a list of `Search` objects, each with its own name and
`sample`.
"""

import inspect
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rnnstudy.errors import shown
from rnnstudy.run import Run
from rnnstudy.spec import Spec, SpecError, at_least, digest
from rnnstudy.sweep.experiment import Experiment, ExperimentError, errors_of, one_line
from rnnstudy.sweep.grids import Scale, at_most

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


SMALLEST_ERROR = 1e-6
"""Smaller errors are replaced by this one before the logarithm is taken, because log10(0) is not finite."""

SEED_STRIDE = 1_000_003
"""Distance between the sampler seed of a batch and the seed for the rest of a batch that was interrupted."""

MOST_SEARCHES = 10_000
"""The most studies of one experiment file."""

Objective = Literal["error", "log10_error", "steps_to_solve", "steps_then_error"]


@dataclass(frozen=True)
class ValidationResult:
    """The result of one run on its validation sequences. A search never uses the test sequences.

    Attributes:
        error: validation error at the last check; infinite for a run that diverged.
        steps_to_solve: see `Outcome`; None if the run did not solve its task.
        steps: the largest number of updates that the run could make.
    """

    error: float
    steps_to_solve: int | None
    steps: int

    @property
    def steps_or_error(self) -> float:
        """The updates to solve; unsolved, the budget times 1 + e/(1 + e), which is less than twice the budget for a
        finite error e."""
        if self.steps_to_solve is not None:
            return self.steps_to_solve
        return self.steps * (2.0 if math.isinf(self.error) else 1 + self.error / (1 + self.error))


def tpe(seed: int) -> "BaseSampler":
    """Optuna's tree-structured Parzen estimator: multivariate. It treats candidates in training as bad ones (constant
    liar), so that the candidates of one batch differ from each other."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


class Search(Spec):
    """One study: how candidates are proposed and compared. The smallest objective value wins.

    Fields:
        name: distinguishes the studies of one file; may be empty if there is only one.
        sample: `sample(trial, scale) -> Run`; None for the function `sample` of the file.
        objective: the value of a candidate, computed from its runs with all `seeds`:
            `error`: the median over seeds of the validation error at the last check, infinite for a diverged run;
            `log10_error`: log10 of that median; a median below 10⁻⁶ counts as 10⁻⁶;
            `steps_to_solve`: the median over seeds of the updates made before the first of two validation checks in a
            row that met the task's criterion; a run that did not solve its task counts twice its budget;
            `steps_then_error`: the same, but a run that did not solve its task counts its budget times 1 + e/(1 + e),
            with e its validation error, so that candidates differ among those that solve and among those that do not.
        trials: number of candidates that are compared, including pruned ones.
        together: number of candidates proposed at once; those with equal shapes train as one population.
        seeds: each candidate is trained once with each seed. A seed decides both weights and data, so that candidates
            and studies are compared on the same sequences.
        fresh_seeds: the confirmation seeds: the winner is trained again with these, and the search has seen none of
            them. A later call with other ones trains it again with those.
        sampler: an Optuna sampler, or a function that makes one from a seed.
        pruner: an Optuna pruner; None for no pruning. At each check it receives the median over seeds of the
            validation error (its log10 if the objective is `log10_error`).
        seed: together with the name, decides the sampler's seeds: each study draws candidates of its own.
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
            raise SpecError("Search.seeds is empty; a candidate needs at least one seed")
        for field in ("seeds", "fresh_seeds"):
            seeds = getattr(self, field)
            if len(set(seeds)) < len(seeds):
                raise SpecError(f"Search.{field} names a seed twice: {seeds}")
        if shared := sorted(set(self.seeds) & set(self.fresh_seeds)):
            raise SpecError(f"Search.fresh_seeds holds {shared[0]}, which the search itself uses; choose other seeds")
        if not _is_optuna(self.sampler, "BaseSampler") and not inspect.isroutine(self.sampler):
            raise SpecError(
                f"Search.sampler is {shown(self.sampler)}; it takes an Optuna sampler such as TPESampler(seed=0), or a "
                "function that makes one from a seed"
            )
        if self.pruner is not None and not _is_optuna(self.pruner, "BasePruner"):
            raise SpecError(f"Search.pruner is {shown(self.pruner)}; it takes an Optuna pruner such as MedianPruner()")

    def sampler_for(self, batch: int, resumed: bool, queued: int = 0) -> "BaseSampler":
        """The sampler for one batch; `batch` is the number of trials judged before it.

        A sampler function receives a different seed for each batch. A sampler object continues its random stream; in a
        process that has `resumed` a study, it gets a random seed, so that it does not repeat its first proposals.

        `queued` candidates of an interrupted batch exist already. The rest of it is drawn with another seed, because
        the batch's own seed would propose the same candidates again.
        """
        from optuna.samplers import BaseSampler

        if not isinstance(self.sampler, BaseSampler):
            sampler = self.sampler(self.own_seed + batch + SEED_STRIDE * queued)  # type: ignore[operator]
            if not isinstance(sampler, BaseSampler):
                raise SpecError(f"Search.sampler made {shown(sampler)} from a seed; it must make an Optuna sampler")
            return sampler
        if resumed:
            self.sampler.reseed_rng()
        return self.sampler

    def study_pruner(self) -> "BasePruner":
        """The pruner; without one, Optuna's pruner that prunes nothing."""
        from optuna.pruners import BasePruner, NopPruner

        return self.pruner if isinstance(self.pruner, BasePruner) else NopPruner()

    def pruning_value(self, errors: Sequence[float]) -> float:
        """The value that the pruner compares, from the validation errors of a candidate's runs at one check."""
        median = float(statistics.median(errors))
        return math.log10(max(median, SMALLEST_ERROR)) if self.objective == "log10_error" else median

    def objective_value(self, results: Sequence[ValidationResult]) -> float:
        """The objective of a candidate, from the results of its runs with all seeds."""
        match self.objective:
            case "steps_to_solve":
                steps = [2.0 * each.steps if each.steps_to_solve is None else each.steps_to_solve for each in results]
            case "steps_then_error":
                steps = [each.steps_or_error for each in results]
            case _:
                return self.pruning_value([result.error for result in results])
        return float(statistics.median(steps))

    @property
    def own_seed(self) -> int:
        """The first of the seeds that a sampler function receives; studies of different names have different ones."""
        return self.seed + int(digest([self.name]), 16) % SEED_STRIDE

    @property
    def comparability_hash(self) -> str:
        """Two trials can be compared only if this hash of objective and seeds is equal. A study stores it."""
        return digest([self.objective, list(self.seeds)])


def _is_optuna(value: object, base: Literal["BaseSampler", "BasePruner", "TrialPruned"]) -> bool:
    """Whether `value` is an object of this Optuna class. If Optuna was never imported it cannot be one, and is not
    imported here: a worker does not need it."""
    where = {"BaseSampler": "optuna.samplers", "BasePruner": "optuna.pruners", "TrialPruned": "optuna.exceptions"}
    module = sys.modules.get(where[base])
    return module is not None and isinstance(value, vars(module)[base])


class Infeasible(ExperimentError):
    """A combination of parameters that cannot be trained.

    `told`: `sample` said so itself, in Optuna's way (`raise optuna.TrialPruned()`); otherwise its specification is
    impossible.
    """

    def __init__(self, message: str, *, told: bool) -> None:
        super().__init__(message)
        self.told = told


def with_seeds(run: Run, seeds: Sequence[int]) -> tuple[Run, ...]:
    """`run` with each seed, for weights and data: with equal seeds, all candidates see equal sequences."""
    return tuple(run.replace(seed=seed, data_seed=None) for seed in seeds)


@dataclass(frozen=True)
class StudyDefinition:
    """One search of an experiment file at one scale.

    Attributes:
        name: the name of the study in Optuna's storage: `experiment/scale`, then `/` and the search's name if it has
            one.
        search: how candidates are proposed and compared.
        sample: `sample(trial, scale) -> Run`.
        scale: the second argument of `sample`.
        path: the experiment file, for error messages.
    """

    name: str
    search: Search
    sample: Callable[..., Run]
    scale: Scale
    path: Path

    def candidate(self, trial: object) -> Run:
        """The run that `sample` makes from a trial.

        Raises `Infeasible` for a combination that cannot be trained, `ExperimentError` if `sample` fails otherwise or
        returns something else.
        """
        with errors_of(self.path):
            try:
                run = self.sample(trial, self.scale)
            except SpecError as error:
                raise Infeasible(one_line(self.path, error), told=False) from None
            except Exception as error:
                if _is_optuna(error, "TrialPruned"):
                    raise Infeasible(one_line(self.path, error), told=True) from None
                raise
        if not isinstance(run, Run):
            raise ExperimentError(f"{self.path}: sample(trial, scale) must return a Run, not {type(run).__name__}")
        return run


def searches_of(experiment: Experiment, scale: Scale) -> list[StudyDefinition]:
    """The searches that an experiment file defines at this scale.

    Raises `ExperimentError` if the file defines something else, two searches of one name, or one without `sample`.
    """
    defined, path = vars(experiment.module), experiment.path
    with errors_of(path):
        made = defined["searches"](scale) if "searches" in defined else [defined["SEARCH"]]
        searches = at_most(MOST_SEARCHES, made, f"searches({scale.value})")
    studies: dict[str, StudyDefinition] = {}
    for search in searches:
        if not isinstance(search, Search):
            raise ExperimentError(f"{path}: SEARCH and searches(scale) take Search objects, not {shown(search)}")
        sample: Callable[..., Run] | None = search.sample or defined.get("sample")
        if not callable(sample):
            raise ExperimentError(f"{path} defines no sample(trial, scale) for its search {search.name!r}")
        if search.name in studies:
            raise ExperimentError(f"{path}: two searches are called '{search.name}'; give each its own name")
        name = "/".join(part for part in (experiment.name, scale.value, search.name) if part)
        studies[search.name] = StudyDefinition(name, search, sample, scale, path)
    if not studies:
        raise ExperimentError(f"{path}: searches({scale.value}) returns no searches")
    return list(studies.values())
