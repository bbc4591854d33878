"""`rnnstudy.watch` in Lightning and the Hugging Face Trainer: the real libraries, which make test-slow installs."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnstudy

# The libraries warn about their own dependencies.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Classifier(nn.Module):
    """An embedding, an LSTM, and a decision from its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(12, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, symbols: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(symbols))[0][:, -1])


def examples(count: int, length: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    symbols = torch.randint(12, (count, length), generator=generator)
    return [(row, row[0] % 2) for row in symbols]


def fitted(tmp_path: Path, callbacks: list[Any]) -> tuple[nn.Module, Any]:
    """A model after nine batches, and its trainer."""
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Classifier()

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            symbols, labels = batch
            return nn.functional.cross_entropy(self.model(symbols), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    pl.seed_everything(0, verbose=False)
    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, callbacks=callbacks, logger=CSVLogger(tmp_path), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(examples(24, 10), batch_size=8))
    return module.model, trainer


def test_lightning_watches_during_fit_and_logs_on_the_schedule(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    from rnnstudy.watching.callbacks.lightning import WatchGradients

    watcher = WatchGradients(every=2)
    model, trainer = fitted(tmp_path / "watched", [watcher])
    bare, _ = fitted(tmp_path / "bare", [])
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), bare.parameters(), strict=True))
    assert list(watcher.flow) == ["model.lstm"]
    assert watcher.flow["model.lstm"].log10("c").shape == (1, 10)
    with Path(trainer.logger.log_dir, "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["through_time/model.lstm/h/rate"]]
    assert [row["step"] for row in logged] == ["0", "2", "4", "6", "8"]
    assert float(logged[-1]["through_time/model.lstm/h/rate"]) == watcher.flow["model.lstm"].rate().item()
    assert not model.lstm._forward_hooks, "the watch ends with fit"


def test_lightning_ends_the_watch_when_training_breaks_off(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from rnnstudy.watching.callbacks.lightning import WatchGradients

    class Stop(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise ValueError("broken off")

    watcher = WatchGradients()
    with pytest.raises(ValueError, match="broken off"):
        fitted(tmp_path, [watcher, Stop()])
    assert not watcher.flow._hooks


def trained(tmp_path: Path, callbacks: list[Any]) -> tuple[nn.Module, Any]:
    """A tiny GPT-2 of random weights after six updates of two accumulated batches, and its trainer."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=12, n_positions=10, n_embd=8, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=2, logging_steps=2,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, seed=0,
    )  # fmt: skip
    data = [{"input_ids": symbols, "labels": symbols} for symbols, _ in examples(48, 10)]
    model = transformers.GPT2LMHeadModel(config)
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.train()
    return model, trainer


def test_the_trainer_watches_blocks_and_keeps_the_numbers_in_its_history(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from rnnstudy.watching.callbacks.transformers import WatchGradients

    sent: list[tuple[int, dict[str, float]]] = []
    watcher = WatchGradients(
        ["transformer.h.*", "transformer.wte"], every=4, to=lambda numbers, step: sent.append((step, numbers))
    )
    model, trainer = trained(tmp_path, [watcher])
    bare, _ = trained(tmp_path, [])
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), bare.parameters(), strict=True))
    assert list(watcher.flow) == ["transformer.wte", "transformer.h.0", "transformer.h.1"]
    assert watcher.flow["transformer.h.1"].log10("x").shape == (1, 10)
    # Two forward passes an update, of which every fourth is watched.
    name = "through_time/transformer.h.0/x/rate"
    history = [(row["step"], row[name]) for row in trainer.state.log_history if name in row]
    assert [step for step, _ in history] == [0, 2, 4]
    assert history == [(step, numbers[name]) for step, numbers in sent]
    assert "transformer.h.0: the loss reaches back" in watcher.flow.explain()
    assert not model.transformer.h[0]._forward_pre_hooks


def test_the_trainer_watches_an_lstm_without_names(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from rnnstudy.watching.callbacks.transformers import WatchGradients

    class Labelled(Classifier):
        def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            logits = super().forward(input_ids)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=3, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    data = [{"input_ids": symbols, "labels": label} for symbols, label in examples(24, 10)]
    watcher = WatchGradients(every=1)
    transformers.Trainer(Labelled(), arguments, train_dataset=data, callbacks=[watcher]).train()
    assert watcher.flow["lstm"].log10("h").isfinite().all()


def test_a_plain_loop_needs_a_function_alone() -> None:
    torch.manual_seed(0)
    model, seen = Classifier(), []
    optimiser = torch.optim.Adam(model.parameters())
    watcher = rnnstudy.watch(model, every=3, to=lambda numbers, step: seen.append((step, numbers)))
    for symbols, label in torch.utils.data.DataLoader(examples(24, 10), batch_size=4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(symbols), label).backward()
        optimiser.step()
    watcher.detach()
    assert [step for step, _ in seen] == [0, 3]
    assert seen[-1][1] == watcher.scalars()
