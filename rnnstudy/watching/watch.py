"""`watch`: hooks on a model's recurrent modules, which keep one call and the gradients at what it returned."""

import fnmatch
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnstudy.spec import RequestError
from rnnstudy.watching import reports
from rnnstudy.watching.call import CELLS, RECURRENT, Call, layer_of
from rnnstudy.watching.positions import Position, hooks_of_positions, layout_of
from rnnstudy.watching.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Flow(Mapping[str, Profile]):
    """The gradients through time of a watched model: name of a recurrent module → `Profile` of its newest call.

    A module is in the mapping once a backward pass has gone through it; the name is "" where the model itself is the
    module. As a context manager, the model is watched until the end of the block; the profiles stay.
    """

    def __init__(self, model: nn.Module, names: str | None, every: int, to: Any, batch_first: bool | None) -> None:
        self._model, self._every = model, every
        self._send = None if to is None else reports.sender(to)
        self._forwards = -1
        self._random_state: Tensor | None = None
        self._fresh = True
        self._calls = 0
        self.names: list[str] = []
        """The modules that are watched."""
        self._reached: dict[str, dict[int, Call | Position]] = {}
        self._profiles: dict[str, Profile] = {}
        self._hooks = [
            model.register_forward_pre_hook(_untraced(self._begin)),
            model.register_forward_hook(_untraced(self._end)),
        ]
        for path, module in model.named_modules():
            # torch.compile puts the model into a module of this name.
            name = ".".join(part for part in path.split(".") if part != "_orig_mod")
            if names is not None and not fnmatch.fnmatchcase(name, names):
                continue
            before = len(self._hooks)
            if isinstance(module, RECURRENT):
                self._hooks.append(module.register_forward_pre_hook(_untraced(_Before(self, name))))
                self._hooks.append(module.register_forward_hook(_untraced(_After(self, name)), with_kwargs=True))
            elif type(module) in CELLS:
                after = _AfterCell(self, name, layer_of(module))
                self._hooks.append(module.register_forward_hook(_untraced(after), with_kwargs=True))
            elif names is not None:
                self._hooks += hooks_of_positions(self, name, module, layout_of(model, module, batch_first))
            if len(self._hooks) > before:
                self.names.append(name)

    @property
    def watching(self) -> bool:
        """Whether the newest forward pass of the model is one that is watched: every `every`-th one."""
        return max(self._forwards, 0) % self._every == 0

    def to_frame(self) -> "pd.DataFrame":
        """A row for each module, layer, direction, state and time step; see `reports.frame`."""
        return reports.frame(self)

    def plot(self) -> "Figure":
        """A panel for each module: log10 ‖dL/ds_t‖ by time, the median with the middle 80 % of sequences."""
        return reports.figure(self)

    def explain(self) -> str:
        """In words, a line for each layer and direction: vanishing, exploding or healthy, and what usually helps."""
        return reports.explanation(self)

    def log(self, step: int, to: Any = None) -> None:
        """Log ratio, rate and half-life of every state into the active MLflow run, or `to` as in `watch`."""
        if to is None:
            import mlflow

            to = mlflow
        reports.sender(to)(reports.scalars(self), step)

    def detach(self) -> None:
        """End the watch: the model is as it was before. The profiles stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __getitem__(self, name: str) -> Profile:
        return self._profiles[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if name in self._profiles)

    def __len__(self) -> int:
        return len(self._profiles)

    def _begin(self, *_: object) -> None:
        """The model is called: a new forward pass, if a backward pass has ended since the last call."""
        if self._fresh and torch.is_grad_enabled():
            self._forwards += 1
            self._fresh = False

    def _wants(self, returned: Tensor) -> bool:
        """Whether a call that returned this tensor is kept."""
        return self.watching and torch.is_grad_enabled() and returned.requires_grad

    def _end(self, _: nn.Module, __: Any, returned: Any) -> None:
        """The model has returned: its backward pass will be seen, also when it is not watched."""
        if not self.watching:
            tensor = next((tensor for tensor in _tensors(returned) if tensor.requires_grad), None)
            if tensor is not None:
                tensor.register_hook(self._passed)

    def _passed(self, _: Tensor | None) -> None:
        """A backward pass that is not watched goes through the model."""
        self._fresh = True

    def _keep(self, name: str, call: Call, outputs: Tensor, last: Sequence[Tensor]) -> None:
        """Ask for the gradients at what a call returned: `outputs`, and the `last` states beside them."""
        number = self._number()

        # torch calls the hook of an output that the loss does not use with None.
        def at_outputs(gradient: Tensor | None) -> None:
            if gradient is not None:
                call.at_outputs = _sum(call.at_outputs, gradient.reshape(call.outputs.data.shape))
                self._received(name, number, call)

        def at_last(index: int, shape: torch.Size, gradient: Tensor | None) -> None:
            if gradient is not None:
                call.at_last[index] = _sum(call.at_last[index], gradient.reshape(shape))
                self._received(name, number, call)

        outputs.register_hook(at_outputs)
        for index, state in enumerate(last):
            if state is not outputs:
                state.register_hook(functools.partial(at_last, index, call.last[index].shape))

    def _number(self) -> int:
        self._calls += 1
        return self._calls

    def _received(self, name: str, number: int, call: "Call | Position") -> None:
        """A gradient has reached what a call returned: when its backward pass has ended, the profile is computed.

        Not later, because the optimiser will change the weights.
        """
        if not self._reached:
            torch.autograd.Variable._execution_engine.queue_callback(self._evaluate)
        self._reached.setdefault(name, {})[number] = call

    def _evaluate(self) -> None:
        for name, numbered in self._reached.items():
            calls = [numbered[number] for number in sorted(numbered)]
            positions = [call.gradient for call in calls if isinstance(call, Position) and call.gradient is not None]
            if positions:
                self._profiles[name] = Profile.of_positions(calls[0].kind, positions)
                continue
            calls[0].keep_weights()
            for call in calls[1:]:
                call.weights = calls[0].weights
            self._profiles[name] = Profile.of_calls(calls)
        self._reached, self._fresh = {}, True
        if self._send is not None:
            self._send(reports.scalars(self), self._forwards)


class _Before:
    """Keeps torch's random state for a module that drops out between its layers."""

    def __init__(self, flow: Flow, name: str) -> None:
        self.flow, self.name = flow, name

    def __call__(self, module: nn.RNNBase, _: Any) -> None:
        drops = module.training and module.dropout > 0 and module.num_layers > 1
        if drops and self.flow.watching and torch.is_grad_enabled():
            self.flow._random_state = torch.get_rng_state()


class _After:
    """Keeps a call of a module, and asks for the gradient at what it returned."""

    def __init__(self, flow: Flow, name: str) -> None:
        self.flow, self.name = flow, name

    def __call__(self, module: nn.RNNBase, given: Any, named: Mapping[str, Any], returned: Any) -> None:
        outputs, last = returned
        data = outputs.data if isinstance(outputs, PackedSequence) else outputs
        if not self.flow._wants(data):
            return
        inputs, initial = _arguments(given, named)
        last = (last,) if isinstance(last, Tensor) else last
        drops = module.training and module.dropout > 0 and module.num_layers > 1
        call = Call(
            module,
            inputs._replace(data=inputs.data.detach()) if isinstance(inputs, PackedSequence) else inputs.detach(),
            initial,
            outputs._replace(data=data.detach()) if isinstance(outputs, PackedSequence) else data.detach(),
            self.flow._random_state if drops else None,
            last=tuple(state.detach() for state in last),
        )
        self.flow._keep(self.name, call, data, last)


class _AfterCell:
    """The same for a cell, which computes one step: a call of the module of one layer with the cell's weights."""

    def __init__(self, flow: Flow, name: str, layer: nn.RNNBase) -> None:
        self.flow, self.name, self.layer = flow, name, layer

    def __call__(self, module: nn.RNNCellBase, given: Any, named: Mapping[str, Any], returned: Any) -> None:
        states = (returned,) if isinstance(returned, Tensor) else returned
        if not self.flow._wants(states[0]):
            return
        inputs, initial = _arguments(given, named)
        width = module.hidden_size
        call = Call(
            self.layer,
            inputs.detach().reshape(1, -1, module.input_size),
            tuple(state.reshape(1, -1, width) for state in initial),
            states[0].detach().reshape(1, -1, width),
            last=tuple(state.detach().reshape(1, -1, width) for state in states),
            through_h="Fused" not in type(states[0].grad_fn).__name__,
        )
        self.flow._keep(self.name, call, states[0], states)


def _arguments(given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, tuple[Tensor, ...]]:
    """The inputs of a call, and its initial states, none for zeros."""
    inputs = given[0] if given else named["input"]
    initial = given[1] if len(given) > 1 else named.get("hx")
    states = (initial,) if isinstance(initial, Tensor) else initial or ()
    return inputs, tuple(state.detach() for state in states)


def _untraced(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that torch.compile leaves alone. Its machinery takes seconds to import, so only where it is in use."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in what a model returned: a tensor, or any nesting of lists, tuples and mappings."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, PackedSequence):
        yield values.data
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _sum(before: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient.detach() if before is None else before + gradient.detach()


def watch(
    model: nn.Module, names: str | None = None, *, every: int = 1, to: Any = None, batch_first: bool | None = None
) -> Flow:
    """Watch the gradients through time of every nn.RNN, nn.LSTM and nn.GRU, and of their cells in loops, in a model.

        with rnnstudy.watch(model) as flow:
            loss = criterion(model(x), y)
            loss.backward()
        flow["encoder.lstm"].log10("h")

    Outputs, gradients and random numbers of the model stay the same to the bit: the gradients of the states are
    computed again, from a module's inputs, weights and the gradient at its outputs, when they are asked for.

    Other modules that go from sequence to sequence (attention blocks, convolutions, an embedding) are watched by name:
    `watch(model, "blocks.*")`. Their profile has one state, `x`: log10 ‖dL/dx_t‖ at what they read, by position; at
    what it returns for an embedding.

    Args:
        model: any module.
        names: which modules, by a pattern as for file names; None for all recurrent ones.
        every: watch every `every`-th forward pass of the model, beginning with the first.
        to: where ratio, rate and half-life of every state are logged after each watched backward pass, with the number
            of the forward pass as the step: mlflow, a W&B run, a TensorBoard writer or a function (numbers, step).
        batch_first: whether the other modules read (batch, time, features) or (time, batch, features); None where the
            modules of the model say so themselves.

    Raises:
        RequestError: for a model without recurrent modules, `every` below 1, a `to` that nothing can be logged to, a
            pattern that no module has, or other modules of which it is not known where time is.
    """
    if every < 1:
        raise RequestError(f"every is {every}; it must be at least 1")
    watchable = any(isinstance(module, RECURRENT) or type(module) in CELLS for module in model.modules())
    if names is None and not watchable:
        raise RequestError(
            f"there is no nn.RNN, nn.LSTM or nn.GRU, and no cell of them, in {type(model).__name__}; name other "
            'modules, for example watch(model, "blocks.*")'
        )
    flow = Flow(model, names, every, to, batch_first)
    if not flow.names:
        flow.detach()
        raise RequestError(f"no module of {type(model).__name__} is called like '{names}'; see model.named_modules()")
    return flow
