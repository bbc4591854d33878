"""Where results are read from: one interface for the store and for a folder of committed files."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from rnnstudy.results.results import Listener, Results
from rnnstudy.results.search_trials import SearchTrials
from rnnstudy.spec import RequestError


class MissingRuns(RequestError):
    """Runs that were asked for are not there. The message names the sweep that makes them."""


class ResultsSource(ABC):
    """Complete runs (finished or diverged), and the searches that made them."""

    @abstractmethod
    def complete_keys(self) -> dict[str, str]:
        """Every complete run: its key, and the experiment that made it."""

    @abstractmethod
    def load(
        self, keys: Iterable[str] | None = None, *, experiment: str | None = None, listener: Listener | None = None
    ) -> Results:
        """The runs `keys`, in that order; without keys all runs of `experiment`; without both, all runs.

        Raises `MissingRuns` when one of them is not complete, or when there is none.
        """

    @abstractmethod
    def search_trials(self, experiment: str, scale: str) -> SearchTrials:
        """The searches of an experiment at one scale; empty where there are none."""
