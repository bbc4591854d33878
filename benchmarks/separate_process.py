"""The public way to train one run: torch.nn in a process of its own, each number logged to MLflow by itself.

`python -m benchmarks.separate_process INDEX STORE` trains `end_to_end.quickstart()[INDEX]`. Nothing of the gradient
through time is recorded. Updates, batches, optimiser, clipping, checks and the rule for stopping are those of the run.
"""

import sys
from collections.abc import Callable

import mlflow
import torch
from torch import Tensor

from benchmarks.end_to_end import quickstart
from benchmarks.training_step import LAYERS
from rnnstudy.run import Run
from rnnstudy.training.verdicts import PASSES_TO_STOP

LOGGED_EVERY = 10
"""Updates between two points of the loss and the gradient's norm, as the probes of the quickstart have it."""


def train(run: Run, log: Callable[[str, float, int], None]) -> None:
    """Train torch.nn's layer and a readout as the run says, and evaluate them."""
    task, training, generator = run.task, run.training, torch.Generator().manual_seed(run.seed)
    torch.manual_seed(run.seed)
    layer, readout = LAYERS[type(run.cell)](task.features, run.cell.width), torch.nn.Linear(run.cell.width, 4)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=training.learning_rate)
    assert training.clip is not None

    def outputs_of(sequences: int) -> tuple[Tensor, Tensor]:
        drawn = task.sample(sequences, generator)
        return readout(layer(drawn.inputs)[0][-1]), drawn.targets[-1]

    def error_on(sequences: int) -> float:
        with torch.no_grad():
            outputs, targets = outputs_of(sequences)
        return float((outputs.argmax(-1) != targets).float().mean())

    passes = 0
    for step in range(1, training.steps + 1):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(*outputs_of(training.batch))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, training.clip.threshold)
        optimiser.step()
        if step % LOGGED_EVERY == 0:
            log("loss", float(loss), step)
            log("gradient_norm", float(norm), step)
        if step % training.check_every == 0:
            error = error_on(training.validation_sequences)
            log("error", error, step)
            passes = passes + 1 if task.criterion.met(error) else 0
            if passes == PASSES_TO_STOP:
                break
    log("test_error", error_on(training.test_sequences), training.steps)


def main() -> None:
    index, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = quickstart()[index]
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("separate processes")
    with mlflow.start_run(run_name=run.name):
        mlflow.log_params({"cell": run.cell.label(), "length": run.task.length, "seed": run.seed})
        train(run, lambda name, value, step: mlflow.log_metric(name, value, step=step))


if __name__ == "__main__":
    main()
