"""`rnnstudy.watch` as a callback of the Hugging Face Trainer: `pip install 'rnnstudy[transformers]'`."""

from collections.abc import Sequence
from typing import Any, final

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise ImportError(
        "the callback for the Hugging Face Trainer needs transformers: pip install 'rnnstudy[transformers]'"
    ) from None

from rnnstudy.watching.reports import sender
from rnnstudy.watching.watch import Flow, watch


@final
class WatchGradients(TrainerCallback):
    """Watches the model during `train`: the numbers of `Flow.scalars` go to the trainer's log history.

        watcher = WatchGradients("transformer.h.*", every=100)
        Trainer(model, arguments, train_dataset=data, callbacks=[watcher]).train()
        watcher.flow.plot()

    Attributes:
        flow: the watch of the newest `train`; None before. `names`, `every` (in forward passes: those of accumulated
            gradients count one by one) and `batch_first` are those of `rnnstudy.watch`. The numbers also go `to` where
            `watch` can send them, with `state.global_step` as their step.
    """

    def __init__(
        self,
        names: str | Sequence[str] | None = None,
        *,
        every: int = 100,
        to: Any = None,
        batch_first: bool | None = True,
    ) -> None:
        self.names, self.every, self.batch_first = names, every, batch_first
        self.send = None if to is None else sender(to)
        self.flow: Flow | None = None

    # The Trainer hands over everything it has by name.
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: Any = None, **_: Any
    ) -> None:
        def log(numbers: dict[str, float], _: int) -> None:
            state.log_history.append({**numbers, "step": state.global_step})
            if self.send is not None:
                self.send(numbers, state.global_step)

        self.flow = watch(model, self.names, every=self.every, to=log, batch_first=self.batch_first)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.flow is not None:
            self.flow.detach()
