"""Runs of several places as one study: those of the store, and those that a folder of committed results holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rnnstudy.results.results import Listener, Results
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.results.source import MissingRuns, ResultsSource


@dataclass(frozen=True)
class Together(ResultsSource):
    """The runs of all `sources`; one that several have is that of the first of them."""

    sources: Sequence[ResultsSource]

    def complete_keys(self) -> dict[str, str]:
        return {key: made_by for source in reversed(self.sources) for key, made_by in source.complete_keys().items()}

    def load(
        self, keys: Iterable[str] | None = None, *, experiment: str | None = None, listener: Listener | None = None
    ) -> Results:
        owned = [source.complete_keys() for source in self.sources]
        if keys is None:
            keys = {key: None for own in owned for key, made_by in own.items() if experiment in (None, made_by)}
        wanted, found = list(keys), {}
        for source, own in zip(self.sources, owned, strict=True):
            if chosen := [key for key in wanted if key in own and key not in found]:
                loaded = source.load(chosen, experiment=experiment)
                found |= {run.header["key"]: run for run in loaded.per_run}
        if missing := [key for key in wanted if key not in found]:
            raise MissingRuns(f"{len(missing)} of {len(wanted)} runs are not complete: {', '.join(missing[:5])}")
        return Results([found[key] for key in wanted], listener)

    def search_trials(self, experiment: str, scale: str) -> SearchTrials:
        """Those of the first source that has any: two searches are not one."""
        for source in self.sources:
            try:
                trials = source.search_trials(experiment, scale)
            except MissingRuns:
                continue
            if len(trials.trials):
                return trials
        return SearchTrials.of_rows([], [])
