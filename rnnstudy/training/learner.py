"""The state of a population in training: weights, update rule, verdicts, readings. A checkpoint holds all of it."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from rnnstudy.engines.choice import engine_name
from rnnstudy.engines.engine import Trajectory
from rnnstudy.errors import RequestError
from rnnstudy.optimisers.clipping import Gradients, Rows, broadcast_replicas
from rnnstudy.probes.reading import Reading
from rnnstudy.run import Training
from rnnstudy.training.checkpoint import incomplete, load_checkpoint, require_form, save_checkpoint
from rnnstudy.training.history import History
from rnnstudy.training.population import Population
from rnnstudy.training.records import Outcome, Phase, Record, TrainingProgress, ValidationCheck
from rnnstudy.training.verdicts import Verdicts

SUMMARY = "summary/"


class Learner:
    """A population's weights and everything that changes while it trains.

    The weights of replicas that solved their task, diverged or were pruned stay as they are: from the next validation
    check on, only `live`, the other runs of the population, are computed.

    Attributes:
        population: all runs.
        live: the runs that are computed now.
        positions: (replica): where they are in the population.
        parameters: their weights.
    """

    def __init__(self, population: Population, device: torch.device, parameters: Mapping[str, Tensor]) -> None:
        self.population = population
        self.device = device
        self.step = 0
        self.engine = ""
        self.complete = False
        self._weights = {name: value.to(device).clone() for name, value in parameters.items()}
        self._compute(torch.arange(len(population.runs)), {})
        self.verdicts = Verdicts(population, device)
        self._at_last_check = TrainingProgress(0, population.training.steps, len(population.runs), math.nan, math.nan)
        self.history = History(population.keys)
        self.emitted = 0
        self.summary: dict[str, Tensor] = {}
        self.seconds_each = 0.0
        self._seconds_before = 0.0
        self._began: float | None = None
        self._started = time.monotonic()

    def _compute(self, positions: Int[Tensor, " replica"], optimiser_state: Mapping[str, Any]) -> None:
        """From now on compute the runs at these positions in the population."""
        self.live = Population(tuple(self.population.runs[index] for index in positions))
        self.positions = positions.to(self.device)
        self.parameters = {
            name: value.index_select(0, self.positions).requires_grad_() for name, value in self._weights.items()
        }
        # All parameters side by side (replica, numbers): one update rule steps them at once.
        self._buffer = torch.zeros_like(Rows.of(self.parameters).numbers.detach())
        self._optimiser = self.population.training.optimiser.at_unit_rate([self._buffer])
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": optimiser_state})
        self._rates = self._per_replica(lambda given: given.learning_rate)
        self._thresholds = self._per_replica(
            lambda given: given.clip.threshold if given.clip else torch.inf, dtype=torch.float64
        )
        self._decays = self._per_replica(lambda given: given.weight_decay.strength if given.weight_decay else 0.0)
        self._strengths = self._per_replica(lambda given: given.omega.strength if given.omega else 0.0)

    def _per_replica(
        self, number: Callable[[Training], float], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, " replica"]:
        """A number of each live run's training."""
        return torch.tensor([number(run.training) for run in self.live.runs], dtype=dtype, device=self.device)

    def drop_stopped(self) -> Int[Tensor, " replica"] | None:
        """Take the replicas that no longer train, and have no more readings to come, out of the computation.

        Readings are made before an update: the last ones of a replica come with the first update after it has stopped.

        Returns the positions, among the live runs, of those that stay; None when nothing changes, which is also the
        case when no replica trains any more.
        """
        training = self.verdicts.active | (self.stopped_at() >= self.step).to(self.device)
        stay = training[self.positions].nonzero().flatten()
        # On a GPU, each new number of replicas is captured and compiled anew.
        most = len(self.live.runs) // 2 if self.device.type == "cuda" else len(self.live.runs) - 1
        if not 0 < len(stay) <= most:
            return None
        self._store_weights()
        state = _of_replicas(self._optimiser.state_dict()["state"], lambda value: value.index_select(0, stay))
        self._compute(self.positions[stay].cpu(), state)
        self.history.narrow(self.positions)
        return stay

    def include_stopped(self) -> None:
        """Take all replicas into the computation again, with the weights at which they stopped."""
        self._store_weights()
        self._compute(torch.arange(len(self.population.runs)), {})
        self.history.narrow(None)

    def _store_weights(self) -> None:
        for name, value in self.parameters.items():
            self._weights[name][self.positions] = value.detach()

    @staticmethod
    def begin(population: Population, device: torch.device) -> "Learner":
        """A population before its first update."""
        return Learner(population, device, population.initial_parameters())

    @staticmethod
    def resume(population: Population, device: torch.device, path: Path | None) -> "Learner | None":
        """A population in the state of the checkpoint at `path`; None when there is no such file.

        Raises `CheckpointError` when the file is damaged or lacks one of the runs.
        """
        if path is None or not path.exists():
            return None
        state = load_checkpoint(path, population.keys)
        try:
            return Learner._restored(population, device, state)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RequestError) as error:
            raise incomplete(path, f"{type(error).__name__}: {error}") from None

    @staticmethod
    def _restored(population: Population, device: torch.device, state: Mapping[str, Any]) -> "Learner":
        replicas = state["replicas"]
        require_form(replicas["parameters"], population.initial_parameters(), "weights")
        learner = Learner(population, device, replicas["parameters"])
        verdicts = learner.verdicts.state()
        # Older versions wrote fewer of them.
        require_form({name: replicas.get(name, own) for name, own in verdicts.items()}, verdicts, "verdicts")
        require_form(replicas["summary"], dict.fromkeys(replicas["summary"], learner.verdicts.error.cpu()), "summaries")
        if state["optimiser"]:
            require_form(state["optimiser"], learner._form_of_the_optimiser(), "moments of the update rule")
        blocks = len(state["history"]["blocks"])
        if not (0 <= state["step"] <= population.training.steps and 0 <= state["handed_on"] <= blocks):
            raise ValueError("its counts are out of range")
        learner.step = state["step"]
        learner.engine = state.get("engine", "reference")
        if not isinstance(learner.engine, str):
            raise TypeError("its engine is no text")
        if learner.engine:
            engine_name(learner.engine)
        learner.complete = state["complete"]
        # The key's name is that of older versions.
        learner.emitted = state["handed_on"]
        learner._seconds_before = state["seconds"]
        learner._optimiser.load_state_dict({**learner._optimiser.state_dict(), "state": state["optimiser"]})
        learner.summary = replicas["summary"]
        learner.seconds_each = state["seconds_each"]
        learner.history = History.restore(population.keys, state["history"], state["positions"])
        # Older versions did not write it: their first readings are the earliest time that is known.
        learner._began = state.get("began", min(learner.history.times, default=None))
        learner.verdicts.restore(replicas)
        if "error" not in replicas and (error := learner.history.last("learning/error")) is not None:
            learner.verdicts.error = error.double()
        if not learner.complete:
            learner.drop_stopped()
        return learner

    def _form_of_the_optimiser(self) -> Mapping[str, Any]:
        """The state of the update rule after a step; before its first one it has none."""
        buffer = torch.zeros_like(self._buffer)
        buffer.grad = torch.zeros_like(buffer)
        optimiser = self.population.training.optimiser.at_unit_rate([buffer])
        optimiser.step()
        return optimiser.state_dict()["state"]

    def save(self, path: Path) -> None:
        """Write a checkpoint of all runs, atomically."""
        self._store_weights()
        save_checkpoint(
            path,
            {
                "keys": list(self.population.keys),
                "structure": self.population.runs[0].structure,
                "step": self.step,
                "engine": self.engine,
                "complete": self.complete,
                "handed_on": self.emitted,
                "seconds": self.seconds,
                "seconds_each": self.seconds_each,
                "began": self._began,
                "replicas": {
                    "parameters": {name: value.cpu() for name, value in self._weights.items()},
                    **self.verdicts.state(),
                    "summary": self.summary,
                },
                "optimiser": _of_replicas(self._optimiser.state_dict()["state"], self._among_all),
                "history": self.history.state(),
            },
        )

    @property
    def seconds(self) -> float:
        """Wall time spent on the population, interruptions left out."""
        return self._seconds_before + time.monotonic() - self._started

    def begin_updates(self) -> float:
        """When the first update began, in seconds since 1970: now, unless it is known from a checkpoint."""
        self._began = time.time() if self._began is None else self._began
        return self._began

    def backward(self, loss: Float[Tensor, " replica"]) -> Rows:
        """The parameter gradients of each replica's loss. Observed trajectories now have their gradients, too."""
        for parameter in self.parameters.values():
            parameter.grad = None
        # Replicas share no parameter, so the gradient of the sum holds each replica's own.
        loss.sum().backward()
        found = {
            name: torch.zeros_like(value) if value.grad is None else value.grad
            for name, value in self.parameters.items()
        }
        return Rows.of(found)

    def regularise(self, gradients: Gradients, trajectories: Sequence[Trajectory]) -> tuple[Gradients, list[Reading]]:
        """The gradients with strength · ∂⁺Omega/∂W_hh added; as readings, Omega and the share of terms counted in it.

        `trajectories`: those of the backward pass that made the gradients, observed.
        """
        model, rule = self.population.model, self.population.training.omega
        if rule is None:
            return gradients, []
        added, readings = dict(gradients), []
        for recurrence, trajectory in enumerate(trajectories):
            name = model.label("W_hh", recurrence)
            term = rule.term(model.cell, self.parameters[name], trajectory.values("h"), trajectory.gradient("h"))
            added[name] = gradients[name] + broadcast_replicas(self._strengths, term.gradient) * term.gradient
            readings.append(Reading(f"learning/{model.label('omega', recurrence)}", term.value, (), ""))
            readings.append(Reading(f"learning/{model.label('omega_live', recurrence)}", term.live, (), "share"))
        return added, readings

    def clip(self, gradients: Gradients) -> Gradients:
        """The gradients after each replica's clipping rule."""
        rule = self.population.training.clip
        return gradients if rule is None else rule.apply(gradients, self._thresholds)

    def update(self, loss: Float[Tensor, " replica"], before: Gradients, after: Gradients) -> None:
        """One update of every active live replica; one whose loss or gradient is not finite has diverged and stops.

        The host does not wait for the device.
        """
        finite = loss.detach().isfinite() & Rows.of(before).norms.isfinite()
        self.verdicts.stop_diverged(self._among_all(finite, fill=True), self.step)
        training = self.population.training
        rates = self._rates * training.schedule.factor(self.step, training.steps)
        with torch.no_grad():
            active = self.verdicts.active[self.positions, None]
            self._buffer.zero_()
            gradients = Rows.of(after)
            self._buffer.grad = torch.where(active, gradients.numbers, 0.0)
            self._optimiser.step()
            change = self._buffer
            if training.weight_decay is not None:
                change = change - self._decays[:, None] * Rows.of(self.parameters).numbers
            steps = Rows(torch.where(active, rates[:, None] * change, 0.0), gradients.shapes)
            for name, value in self.parameters.items():
                value += steps[name]
        self.step += 1

    def after_validation(self, measures: Mapping[str, Float[Tensor, " replica"]]) -> ValidationCheck:
        """Process a validation check of the live runs on the host: record the measures, fetch all readings, stop solved
        runs."""
        units = {"error": self.population.task.criterion.error}
        readings = [Reading(f"learning/{name}", values, (), units.get(name, "")) for name, values in measures.items()]
        self.record(readings, self.step, spacing=self.population.training.check_every)
        self.history.fetch(time.time())
        error = self.verdicts.error
        error[self.positions.cpu()] = measures["error"].double().cpu()
        self.verdicts.stop_solved(self.step)
        active, loss = self.verdicts.active.cpu(), self.history.last("learning/loss")
        self._at_last_check = TrainingProgress(
            step=self.step,
            steps=self.population.training.steps,
            active=int(active.sum()),
            loss=float(loss[active].nanmedian()) if loss is not None and active.any() else math.nan,
            error=float(error.nan_to_num(nan=torch.inf).min()),
        )
        errors = torch.where(self.verdicts.diverged() | ~error.isfinite(), torch.inf, error).tolist()
        pruned = self.verdicts.pruned().tolist()
        return ValidationCheck(
            self.step, {key: errors[index] for index, key in enumerate(self.population.keys) if not pruned[index]}
        )

    def _among_all(self, values: Shaped[Tensor, "live *axes"], fill: float = 0) -> Shaped[Tensor, "replica *axes"]:
        """Values of the live runs among those of all runs; `fill` for the others."""
        spread = values.new_full((len(self.population.runs), *values.shape[1:]), fill)
        spread[self.positions] = values
        return spread

    def stopped_at(self) -> Int[Tensor, " replica"]:
        """Updates that each replica has made."""
        return self.verdicts.stopped_at(self.step)

    def record(self, readings: Sequence[Reading], step: int | Tensor, spacing: int) -> None:
        """Keep readings made after `step` updates; those named `summary/…` go to the table of runs."""
        for reading in readings:
            if reading.name.startswith(SUMMARY):
                self.summary[reading.name.removeprefix(SUMMARY)] = reading.values.detach().double().cpu()
        self.history.add([reading for reading in readings if not reading.name.startswith(SUMMARY)], step, spacing)

    def finish(self, test: Mapping[str, Float[Tensor, " replica"]]) -> None:
        """End the training with the measures on the test sequences, which decide `solved`.

        A replica whose weights or test error are not finite after the last update has diverged, too. Diverged and
        pruned replicas have no measures. `test` is empty where all replicas were pruned.
        """
        self._store_weights()
        finite = test["error"].isfinite() if test else torch.ones_like(self.verdicts.active)
        for value in self._weights.values():
            finite = finite & value.isfinite().flatten(1).all(1)
        self.verdicts.diverged_at_the_end(finite, self.step)
        unmeasured = self.verdicts.diverged() | self.verdicts.pruned()
        for name, values in test.items():
            self.summary[name] = torch.where(unmeasured, torch.nan, values.double().cpu())
        self.seconds_each = self.seconds / len(self.population.runs)
        self.history.fetch(time.time())
        self.complete = True

    def progress(self, phase: Phase = "training") -> TrainingProgress:
        """For a display: the step, and the numbers of the last check. The host does not wait for the device."""
        return dataclasses.replace(self._at_last_check, step=self.step, phase=phase)

    def new_records(self) -> Iterator[Record]:
        """The records of all blocks of readings since the previous call."""
        stopped = self.stopped_at().tolist()
        for block in range(self.emitted, self.history.blocks):
            for replica, key in enumerate(self.population.keys):
                series = self.history.series(replica, stopped[replica], block, block + 1)
                if series:
                    step = max(int(readings.steps[-1]) for readings in series.values())
                    yield Record(key, step, self.history.times[block], series)
        self.emitted = self.history.blocks

    def last_records(self, engine: str) -> Iterator[Record]:
        """The last record of each replica: its outcome, all its readings and, unless it was pruned, its weights."""
        stopped, criterion = self.stopped_at().tolist(), self.population.task.criterion
        endings, steps_to_solve = self.verdicts.endings(), self.verdicts.steps_to_solve()
        for replica, key in enumerate(self.population.keys):
            status, reason = endings[replica]
            outcome = Outcome(
                status=status,
                step=stopped[replica],
                solved=criterion.met(float(self.summary["error"][replica])) if status == "finished" else None,
                steps_to_solve=steps_to_solve[replica],
                seconds=self.seconds_each,
                engine=engine,
                reason=f"{reason} at step {stopped[replica]}" if reason else "",
                summary={
                    name: float(values[replica])
                    for name, values in self.summary.items()
                    if bool(values[replica].isfinite())
                },
            )
            weights = {name: value[replica].cpu().numpy() for name, value in self._weights.items()}
            series = self.history.series(replica, stopped[replica])
            kept = None if status == "pruned" else weights
            yield Record(key, stopped[replica], self.history.times[-1], series, outcome, kept)


def _of_replicas(state: Mapping[Any, Any], change: Callable[[Tensor], Tensor]) -> dict[Any, Any]:
    """The state of an optimiser with every tensor (replica, …) in it changed; plain numbers stay as they are."""
    return {
        parameter: {name: change(value) if value.dim() > 0 else value for name, value in values.items()}
        for parameter, values in state.items()
    }
