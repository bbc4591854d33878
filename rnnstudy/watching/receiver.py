"""What the hooks and recorders of a watch need of it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from rnnstudy.watching.call import Call


class Receiver(Protocol):
    """A watch, as its hooks see it; `Flow` is one."""

    @property
    def watching(self) -> bool:
        """Whether the newest forward pass is watched."""
        ...

    def _begin(self) -> None:
        """A module is called: perhaps a new forward pass."""

    def _wants(self, name: str, returned: Tensor) -> bool:
        """Whether a call of module `name` that returned, or read, this tensor is kept."""
        ...

    def _keep(self, name: str, call: Call, outputs: Tensor, last: Sequence[Tensor]) -> None:
        """Ask for the gradients at what a call returned."""

    def _number(self) -> int:
        """The next number of a call."""
        ...

    def _received(self, name: str, number: int, record: Any) -> None:
        """A gradient has reached a record of module `name`: a call, a position or a run."""
