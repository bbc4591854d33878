"""Modules that are not recurrent: the gradient at each position of what they read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rnnstudy.spec import RequestError
from rnnstudy.watching.receiver import Receiver

Layout = Literal["batch time", "time batch", "batch features"]
"""The order of the axes: (batch, time, features), (time, batch, features), or (batch, features, time)."""


@dataclass
class Position:
    """What a module read in one call, and the gradient at it (time, sequence, feature), summed over backward passes."""

    kind: str
    gradient: Tensor | None = None


def layout_of(model: nn.Module, module: nn.Module, batch_first: bool | None) -> Layout:
    """Where time is in what a module reads. Raises `RequestError` where neither the user nor the model says it."""
    if isinstance(module, nn.Conv1d):
        return "batch features"
    if batch_first is None:
        said = {part.batch_first for part in [*module.modules(), *model.modules()] if hasattr(part, "batch_first")}
        if len(said) != 1:
            raise RequestError(
                f"it is not known where time is in what {type(module).__name__} reads; give watch(…, batch_first=True) "
                "for (batch, time, features), batch_first=False for (time, batch, features)"
            )
        [batch_first] = said
    return "batch time" if batch_first else "time batch"


def hooks_of_positions(flow: Receiver, name: str, module: nn.Module, layout: Layout) -> list[RemovableHandle]:
    """Hooks that ask for the gradient at what a module reads, or at what an embedding returns."""
    if isinstance(module, nn.Embedding):
        return [module.register_forward_hook(lambda _, __, returned: _ask(flow, name, module, layout, returned))]
    return [module.register_forward_pre_hook(_before(flow, name, module, layout), with_kwargs=True)]


def _before(flow: Receiver, name: str, module: nn.Module, layout: Layout) -> Callable[..., Any]:
    def hook(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        flow._begin()
        if not torch.is_grad_enabled():
            return None
        read = given[0] if given else next(iter(named.values()))
        if not isinstance(read, Tensor) or not read.is_floating_point():
            what = read.dtype if isinstance(read, Tensor) else type(read).__name__
            raise RequestError(
                f"'{name}' reads {what}; a watch needs a tensor of floats (batch, time, features): watch an embedding "
                "or a block inside it"
            )
        if not read.requires_grad:
            if not flow.watching:
                return None
            # What no weight stands before, the data themselves: watched as if it were a leaf.
            read = read.detach().requires_grad_()
            given = (read, *given[1:]) if given else given
            named = named if given else {**named, next(iter(named)): read}
        _ask(flow, name, module, layout, read)
        return given, named

    return hook


def _ask(flow: Receiver, name: str, module: nn.Module, layout: Layout, values: Tensor) -> None:
    if not flow._wants(name, values):
        return
    if values.ndim != 3:
        raise RequestError(
            f"'{name}' is given {tuple(values.shape)}; a watch needs three axes: batch, time and features"
        )
    call, number = Position(type(module).__name__), flow._number()

    def receive(gradient: Tensor | None) -> None:
        if gradient is not None:
            by_time = {"batch time": (1, 0, 2), "time batch": (0, 1, 2), "batch features": (2, 0, 1)}[layout]
            found = gradient.detach().permute(by_time)
            call.gradient = found if call.gradient is None else call.gradient + found
            flow._received(name, number, call)

    values.register_hook(receive)
