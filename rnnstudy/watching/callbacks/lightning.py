"""`rnnstudy.watch` as a callback of Lightning: `pip install 'rnnstudy[lightning]'`."""

from collections.abc import Sequence
from typing import final

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise ImportError("the callback for Lightning needs lightning: pip install 'rnnstudy[lightning]'") from None

from rnnstudy.watching.watch import Flow, watch


@final
class WatchGradients(Callback):
    """Watches the module during `fit`, and logs the numbers of `Flow.scalars` to the trainer's loggers.

        trainer = Trainer(callbacks=[WatchGradients(every=100)])
        trainer.fit(module, data)
        trainer.callbacks[0].flow.plot()

    Attributes:
        flow: the watch of the newest `fit`; None before. `names`, `every` (in batches) and `batch_first` are those of
            `rnnstudy.watch`; the step of what is logged is `trainer.global_step`.
    """

    def __init__(
        self, names: str | Sequence[str] | None = None, *, every: int = 100, batch_first: bool | None = None
    ) -> None:
        self.names, self.every, self.batch_first = names, every, batch_first
        self.flow: Flow | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def log(numbers: dict[str, float], _: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.global_step)

        self.flow = watch(pl_module, self.names, every=self.every, to=log, batch_first=self.batch_first)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.flow is not None:
            self.flow.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
