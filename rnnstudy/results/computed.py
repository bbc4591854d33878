"""Values of the ledger that need no training: chance levels."""

from abc import abstractmethod
from typing import Literal

from rnnstudy.spec import Spec
from rnnstudy.tasks.task import Task


class Computed(Spec):
    """A number, or one number for each of several independent trials, that is computed when it is asked for."""

    @abstractmethod
    def values(self) -> list[float]:
        """One number for each trial; infinite where a trial did not end within its budget."""


class ChanceLevel(Computed):
    """Mean loss or mean error of the best predictor that sees no input, in closed form (`Task.chance`)."""

    task: Task
    of: Literal["loss", "error"]

    def values(self) -> list[float]:
        return [float(getattr(self.task.chance, self.of))]
