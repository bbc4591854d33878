"""`watch`: which modules of a model are watched, on what schedule, and the profiles of the newest backward pass."""

import fnmatch
import functools
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rnnstudy.spec import RequestError
from rnnstudy.watching import reports
from rnnstudy.watching.call import CELLS, RECURRENT, Call, torch_class
from rnnstudy.watching.hooks import CellHooks, OwnCellHooks, RecurrentHooks, refuse_dropout_elsewhere, untraced
from rnnstudy.watching.own import Unrolled, ask_gradient, states_of, tensors_in
from rnnstudy.watching.positions import hooks_of_positions, layout_of
from rnnstudy.watching.profile import Profile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Flow(Mapping[str, Profile]):
    """The gradients through time of a watched model: name of a module → `Profile` of its newest forward pass.

    A module is in the mapping once a backward pass has gone through it; the name is "" where the model itself is the
    module. As a context manager, the model is watched until the end of the block; the profiles stay.
    """

    def __init__(self, every: int, to: Any) -> None:
        self._every = every
        self._send = None if to is None else reports.sender(to)
        self._attached, self._blocks = True, 0
        self._hooks: list[RemovableHandle] = []
        self.names: list[str] = []
        """The modules that are watched."""
        self._profile_of: dict[str, Callable[[Any], Profile]] = {}
        self._profiles: dict[str, Profile] = {}
        # The newest forward pass: whether its backward pass has ended, and which modules will say so.
        self._forwards, self._fresh = -1, True
        self._noticed: set[str] = set()
        self._loops: dict[str, Unrolled | None] = {}
        # The backward pass that is running: its number in torch, and what it has reached by now.
        self._calls, self._backward = 0, -1
        self._reached: dict[str, dict[int, Any]] = {}

    @property
    def watching(self) -> bool:
        """Whether the newest forward pass of the model is one that is watched: every `every`-th one."""
        return max(self._forwards, 0) % self._every == 0

    def state(self, value: Tensor, t: int, *, name: str = "h", module: str = "") -> Tensor:
        """Watch a state of a loop of your own, where the loop has computed it. Returns `value` as it is.

            for t, x in enumerate(inputs):
                h = torch.tanh(x @ w_in + h @ w_rec)
                flow.state(h, t)

        The profile is `flow[module]`, its state `name`. Without gradients, after `detach` and off the schedule nothing
        happens.

        Args:
            value: (batch, …), or one axis for a single sequence; the norm is over all axes but the first.
            t: index of the step. It goes up by 1, or down by 1 in a recurrence that goes back in time; where it
                begins anew, sequences beside the earlier ones begin.
            name: of the state, where a step has several.
            module: of the recurrence, where a model has several.

        Raises:
            RequestError: for a t that does not follow the one before, a shape that changes, or the name of a module
                that is watched already.
        """
        if not (self._attached and torch.is_grad_enabled() and value.requires_grad):
            return value
        if module not in self._loops:
            if module in self.names:
                raise RequestError(
                    f"'{module}' is watched already; give the loop another name: flow.state(…, module=…)"
                )
            self._add(module, Profile.of_runs, [])
            self._loops[module] = None
        if self._wants(module, value):
            run = self._loops[module]
            if run is None or not run.follows(name, t):
                run = self._loops[module] = Unrolled(module, "a loop of your own", self._number())
            if run.times[-1:] != [t]:
                run.times.append(t)
                run.steps.append({})
            ask_gradient(self, run, name, value)
        return value

    def to_frame(self) -> "pd.DataFrame":
        """A row for each module, layer, direction, state and time step; see `reports.frame`."""
        return reports.frame(self)

    def plot(self) -> "Figure":
        """A panel for each module: log10 ‖dL/ds_t‖ by time, the median with the middle 80 % of sequences."""
        return reports.figure(self)

    def explain(self) -> str:
        """In words, a line for each layer and direction: vanishing, exploding or healthy, and what usually helps."""
        return reports.explanation(self)

    def scalars(self) -> dict[str, float]:
        """What is logged: gains of a step back, and ratio, rate and half-life of every state; see `reports.scalars`."""
        return reports.scalars(self)

    def log(self, step: int, to: Any = None) -> None:
        """Log what `scalars` returns into the active MLflow run, or `to` as in `watch`."""
        if to is None:
            import mlflow

            to = mlflow
        reports.sender(to)(self.scalars(), step)

    def detach(self) -> None:
        """End the watch: the model is as it was before. The profiles stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._attached, self._loops = [], False, {}

    def __enter__(self) -> Self:
        self._blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks -= 1
        if not self._blocks:
            self.detach()

    def __getitem__(self, name: str) -> Profile:
        return self._profiles[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if name in self._profiles)

    def __len__(self) -> int:
        return len(self._profiles)

    def _attach(self, model: nn.Module, names: Sequence[str] | None, batch_first: bool | None) -> None:
        """Set the hooks on a model."""
        self._hooks += [
            model.register_forward_pre_hook(untraced(lambda *_: self._begin())),
            model.register_forward_hook(untraced(lambda *given: self._notice(given[-1]))),
        ]
        for name, module in _named(model):
            if names is not None and not any(_matches(name.split("."), pattern.split(".")) for pattern in names):
                continue
            kind = torch_class(module)
            if states_of(module):
                self._add(name, Profile.of_runs, OwnCellHooks(self, name, module).register(module))
            elif kind in RECURRENT:
                refuse_dropout_elsewhere(name, module)
                self._add(name, Profile.of_calls, RecurrentHooks(self, name).register(module))
            elif kind is not None:
                self._add(name, Profile.of_calls, CellHooks(self, name, module, kind).register(module))
            elif names is not None:
                hooks = hooks_of_positions(self, name, module, layout_of(model, module, batch_first))
                self._add(name, Profile.of_positions, hooks)

    def _add(self, name: str, profile_of: Callable[[Any], Profile], hooks: list[RemovableHandle]) -> None:
        self.names.append(name)
        self._profile_of[name] = profile_of
        self._hooks += hooks

    def _begin(self) -> None:
        """A module is called: a new forward pass, if a backward pass has ended since the last call."""
        # Checkpointing computes parts of a forward pass again during the backward pass.
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() >= 0:
            return
        if self._reached:
            # The backward pass was broken off by an error.
            self._reached, self._fresh = {}, True
        if self._fresh:
            self._forwards, self._fresh, self._noticed = self._forwards + 1, False, set()
            self._loops = dict.fromkeys(self._loops)

    def _wants(self, name: str, returned: Tensor) -> bool:
        """Whether a call that returned this tensor is kept."""
        if not (torch.is_grad_enabled() and returned.requires_grad):
            return False
        self._begin()
        if not self.watching and name not in self._noticed:
            self._noticed.add(name)
            returned.register_hook(self._passed)
        return self.watching

    def _notice(self, returned: Any) -> None:
        """The model has returned: its backward pass will be noticed, also when it is not watched."""
        if not self.watching and "" not in self._noticed:
            tensor = next((tensor for tensor in tensors_in(returned) if tensor.requires_grad), None)
            if tensor is not None:
                self._noticed.add("")
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

    def _received(self, name: str, number: int, record: Any) -> None:
        """A gradient has reached a record: when its backward pass has ended, the profile is computed.

        Not later, because the optimiser will change the weights.
        """
        if (backward := torch._C._current_graph_task_id()) != self._backward:
            self._backward = backward
            torch.autograd.Variable._execution_engine.queue_callback(self._evaluate)
        self._reached.setdefault(name, {})[number] = record

    def _evaluate(self) -> None:
        reached, self._reached, self._fresh, self._backward = self._reached, {}, True, -1
        for name, numbered in reached.items():
            self._profiles[name] = self._profile_of[name]([numbered[number] for number in sorted(numbered)])
        if self._send is not None:
            self._send(self.scalars(), self._forwards)


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model by name; torch.compile puts the model into a module of the name `_orig_mod`."""
    for path, module in model.named_modules():
        yield ".".join(part for part in path.split(".") if part != "_orig_mod"), module


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern fits a name, part by part; the part `**` stands for any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _sum(before: Tensor | None, gradient: Tensor) -> Tensor:
    return gradient.detach() if before is None else before + gradient.detach()


_WATCHES: "weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[Flow], Any]]" = weakref.WeakKeyDictionary()
"""The newest watch of a model, and what was asked for."""


def watch(
    model: nn.Module | None = None,
    names: str | Sequence[str] | None = None,
    *,
    every: int = 1,
    to: Any = None,
    batch_first: bool | None = None,
) -> Flow:
    """Watch the gradients through time of every nn.RNN, nn.LSTM and nn.GRU, and of cells in loops, in a model.

        with rnnstudy.watch(model) as flow:
            loss = criterion(model(x), y)
            loss.backward()
        flow["encoder.lstm"].log10("h")

    Outputs, gradients and random numbers of the model stay the same to the bit: the gradients of the states are
    computed again, from a module's inputs, weights and the gradient at its outputs, when they are asked for.

    A cell of your own is watched if its `forward` is marked with `rnnstudy.states`; a loop without one hands each
    state to `flow.state(h, t)`, and needs no model: `flow = rnnstudy.watch()`. Both end where their floats end.

    Other modules that go from sequence to sequence (attention blocks, convolutions, an embedding) are watched by name:
    `watch(model, "blocks.*")`. Their profile has one state, `x`: log10 ‖dL/dx_t‖ at what they read, by position; at
    what it returns for an embedding.

    A watch ends with the `with` block, or with `detach()`. With gradient accumulation, each forward pass counts for
    `every`, and the profile is that of the newest one that was watched. A model is watched once: asked again for the
    same, `watch` returns the watch there is.

    Args:
        model: any module; None for loops that call `flow.state` alone.
        names: which modules, by one or several patterns of their names, in which `*` stands for what is between two
            dots, `**` for any number of parts; None for all recurrent ones.
        every: watch every `every`-th forward pass of the model, beginning with the first.
        to: where the numbers of `Flow.scalars` are logged after each watched backward pass, with the number of the
            forward pass as the step: mlflow, a W&B run, a TensorBoard writer or a function (numbers, step).
        batch_first: whether the other modules read (batch, time, features) or (time, batch, features); None where the
            modules of the model say so themselves.

    Raises:
        RequestError: for a model without recurrent modules, `every` below 1, a `to` that nothing can be logged to, a
            pattern that no module has, other modules of which it is not known where time is, a recurrent module whose
            computation is not known (a `forward` of its own, nn.DataParallel, dropout between layers on a GPU), or a
            model that is watched in another way already.
    """
    if every < 1:
        raise RequestError(f"every is {every}; it must be at least 1")
    patterns = [names] if isinstance(names, str) else names
    flow = Flow(every, to)
    if model is None:
        if patterns is not None:
            raise RequestError("names of modules need the model: watch(model, names)")
        return flow
    # torch.compile's wrapper and the model inside are one model.
    root: nn.Module = getattr(model, "_orig_mod", model)
    asked = (patterns, every, to, batch_first)
    attached, before = _WATCHES.get(root, (lambda: None, None))
    if (current := attached()) is not None and current._attached:
        if asked != before:
            raise RequestError(
                f"this {type(root).__name__} is watched already, with other arguments; end that watch first with its "
                "detach(), or name all modules in one: watch(model, [pattern, pattern])"
            )
        return current
    _refuse(root, all_recurrent=patterns is None)
    try:
        flow._attach(root, patterns, batch_first)
    except RequestError:
        flow.detach()
        raise
    if not flow.names:
        flow.detach()
        wanted = "' or '".join(patterns or ())
        raise RequestError(
            f"no module of {type(root).__name__} is called like '{wanted}'; the names are those of "
            "model.named_modules(), and * stands for what is between two dots"
        )
    _WATCHES[root] = (weakref.ref(flow), asked)
    return flow


def _sharded(module: nn.Module) -> bool:
    """Whether each process has only a part of a module's own weights. Imports nothing: sharding has imported it."""
    fsdp, tensor = sys.modules.get("torch.distributed.fsdp"), sys.modules.get("torch.distributed.tensor")
    if fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
        return True
    return tensor is not None and any(isinstance(each, tensor.DTensor) for each in module.parameters(recurse=False))


def _refuse(model: nn.Module, *, all_recurrent: bool) -> None:
    """Raise `RequestError` for a model with a module that cannot be watched, or, if all are wanted, without any."""
    for name, module in _named(model):
        called = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise RequestError(
                f"{called} runs copies of the model, each with a part of the batch, which a watch does not put "
                "together; watch the module inside, on one device: watch(model.module)"
            )
        if _sharded(module):
            raise RequestError(
                f"{called} keeps its weights in parts on several processes (FSDP, tensor parallelism), which a watch "
                "does not put together; watch the model before it is sharded, on one device"
            )
        recurrent = isinstance(module, (*RECURRENT, *CELLS)) and not states_of(module)
        if all_recurrent and recurrent and torch_class(module) is None:
            raise RequestError(
                f"{called} has a forward of its own, so that what it computes is not known; mark a cell's forward with "
                "@rnnstudy.states, hand the states to flow.state(h, t), or name the other modules: watch(model, names)"
            )
    if all_recurrent and not any(torch_class(module) or states_of(module) for module in model.modules()):
        raise RequestError(
            f"there is no nn.RNN, nn.LSTM or nn.GRU, and no cell of them, in {type(model).__name__}; name other "
            'modules, for example watch(model, "blocks.*"), mark the forward of a cell of your own with '
            "@rnnstudy.states, or hand the states of a loop to flow.state(h, t) of flow = rnnstudy.watch()"
        )
