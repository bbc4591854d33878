"""The hooks on a model's recurrent modules: each keeps a call, and asks for the gradients at what it returned."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from rnnstudy.spec import RequestError
from rnnstudy.watching.call import Call, layer_of
from rnnstudy.watching.own import CellRecorder
from rnnstudy.watching.receiver import Receiver


class Hooks(ABC):
    """The hooks of one module."""

    def __init__(self, flow: Receiver, name: str) -> None:
        self.flow, self.name = flow, name

    def register(self, module: nn.Module) -> list[RemovableHandle]:
        return [module.register_forward_hook(untraced(self._after), with_kwargs=True)]

    def _after(self, module: nn.Module, given: Sequence[Any], named: Mapping[str, Any], returned: Any) -> None:
        if "_is_replica" in vars(module):
            raise RequestError(
                f"'{self.name}' runs in a copy of nn.DataParallel, whose calls a watch cannot tell apart; train on one "
                "device, or in one process for each device"
            )
        self.after(module, given, named, returned)

    @abstractmethod
    def after(self, module: Any, given: Sequence[Any], named: Mapping[str, Any], returned: Any) -> None:
        """The module was called with these arguments, and has returned."""


@final
class RecurrentHooks(Hooks):
    """Those of an nn.RNN, nn.LSTM or nn.GRU."""

    def __init__(self, flow: Receiver, name: str) -> None:
        super().__init__(flow, name)
        self._random_state: Tensor | None = None

    def register(self, module: nn.Module) -> list[RemovableHandle]:
        return [module.register_forward_pre_hook(untraced(self._before)), *super().register(module)]

    def _before(self, module: Any, _: Any) -> None:
        """Keep torch's random state for a module that drops out between its layers."""
        if not _drops_out(module) or not torch.is_grad_enabled():
            return
        refuse_dropout_elsewhere(self.name, module)
        self.flow._begin()
        if self.flow.watching:
            self._random_state = torch.get_rng_state()

    def after(self, module: Any, given: Sequence[Any], named: Mapping[str, Any], returned: Any) -> None:
        outputs, last = returned
        data = outputs.data if isinstance(outputs, PackedSequence) else outputs
        if not self.flow._wants(self.name, data):
            return
        inputs, initial = _arguments(given, named)
        last = (last,) if isinstance(last, Tensor) else last
        call = Call(
            module,
            inputs._replace(data=inputs.data.detach()) if isinstance(inputs, PackedSequence) else inputs.detach(),
            initial,
            outputs._replace(data=data.detach()) if isinstance(outputs, PackedSequence) else data.detach(),
            self._random_state if _drops_out(module) else None,
            last=tuple(state.detach() for state in last),
        )
        self.flow._keep(self.name, call, data, last)


@final
class CellHooks(Hooks):
    """Those of a cell of torch.nn: its call is one of the module of one layer with the cell's weights."""

    def __init__(self, flow: Receiver, name: str, cell: Any, kind: type[nn.Module]) -> None:
        super().__init__(flow, name)
        self._layer = layer_of(cell, kind)

    def after(self, module: Any, given: Sequence[Any], named: Mapping[str, Any], returned: Any) -> None:
        states = (returned,) if isinstance(returned, Tensor) else returned
        if not self.flow._wants(self.name, states[0]):
            return
        inputs, initial = _arguments(given, named)
        width = module.hidden_size
        call = Call(
            self._layer,
            inputs.detach().reshape(1, -1, module.input_size),
            tuple(state.reshape(1, -1, width) for state in initial),
            states[0].detach().reshape(1, -1, width),
            last=tuple(state.detach().reshape(1, -1, width) for state in states),
            through_h="Fused" not in type(states[0].grad_fn).__name__,
            cell=module,
        )
        self.flow._keep(self.name, call, states[0], states)


@final
class OwnCellHooks(Hooks):
    """Those of a cell whose `forward` is marked with `rnnstudy.states`."""

    def __init__(self, flow: Receiver, name: str, cell: nn.Module) -> None:
        super().__init__(flow, name)
        self._recorder = CellRecorder(flow, name, cell)

    def after(self, module: Any, given: Sequence[Any], named: Mapping[str, Any], returned: Any) -> None:
        if torch.is_grad_enabled():
            states = self._recorder.returned(returned)
            if states and self.flow._wants(self.name, next(iter(states.values()))):
                self._recorder.add((given, named), states)


def refuse_dropout_elsewhere(name: str, module: Any) -> None:
    """Raise `RequestError` for a module that drops out between its layers on another device than the CPU."""
    device = next(module.parameters()).device.type
    if _drops_out(module) and device != "cpu":
        raise RequestError(
            f"'{name}' ({type(module).__name__}) drops out between its layers on {device}: the mask is drawn inside "
            "the fused kernel (cuDNN) and cannot be repeated, and without it the layers below cannot be recomputed; "
            "use dropout=0, or modules of one layer with nn.Dropout between them"
        )


def untraced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that torch.compile leaves alone. Its machinery takes seconds to import, so only where it is in use."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _drops_out(module: nn.RNNBase) -> bool:
    return module.training and module.dropout > 0 and module.num_layers > 1


def _arguments(given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, tuple[Tensor, ...]]:
    """The inputs of a call, and its initial states, none for zeros."""
    inputs = given[0] if given else named["input"]
    initial = given[1] if len(given) > 1 else named.get("hx")
    states = (initial,) if isinstance(initial, Tensor) else initial or ()
    return inputs, tuple(state.detach() for state in states)
