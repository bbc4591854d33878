"""The state of a population in training: weights, update rule, masks, decisions, readings. What a checkpoint holds."""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.engines.engine import Trajectory
from rnnstudy.optimisers.clipping import Gradients, global_norms, per_replica, side_by_side
from rnnstudy.probes.reading import Reading
from rnnstudy.run import Training
from rnnstudy.training.checkpoint import load_checkpoint, save_checkpoint
from rnnstudy.training.history import History
from rnnstudy.training.population import Population
from rnnstudy.training.records import Check, Outcome, Record, Status, TrainingProgress

NEVER = -1
SUMMARY = "summary/"
PASSES_TO_STOP = 2


class Learner:
    """A population's weights and everything that changes while it trains.

    Replicas that solved their task, diverged or were pruned are masked, not removed: their weights stay as they are.
    """

    def __init__(self, population: Population, device: torch.device, parameters: Mapping[str, Tensor]) -> None:
        replicas = len(population.runs)
        self.population = population
        self.device = device
        self.step = 0
        self.engine = ""
        self.complete = False
        self.parameters = {name: value.to(device).clone().requires_grad_() for name, value in parameters.items()}
        # All parameters side by side (replica, numbers): one update rule steps them at once.
        self._buffer = torch.zeros_like(side_by_side(self.parameters))
        self._optimiser = population.training.optimiser.at_unit_rate([self._buffer])
        self._rates = torch.tensor([run.training.learning_rate for run in population.runs], device=device)
        self._thresholds = torch.tensor(
            [run.training.clip.threshold if run.training.clip else torch.inf for run in population.runs],
            dtype=torch.float64,
            device=device,
        )
        self._decays = self._of_each(lambda one: one.weight_decay.strength if one.weight_decay else 0.0)
        self._strengths = self._of_each(lambda one: one.omega.strength if one.omega else 0.0)
        self.active: Bool[Tensor, " replica"] = torch.ones(replicas, dtype=torch.bool, device=device)
        self._diverged_at = torch.full((replicas,), NEVER, device=device)
        # Decisions are taken on the host, at checks.
        self._ended_at = torch.full((replicas,), NEVER)
        self._passes = torch.zeros(replicas, dtype=torch.long)
        self._solved_at = torch.full((replicas,), NEVER)
        self._pruned_at = torch.full((replicas,), NEVER)
        self._errors: Float[Tensor, " replica"] = torch.full((replicas,), torch.nan)
        self._any_active = True
        self._at_last_check = TrainingProgress(0, population.training.steps, replicas, math.nan, math.nan)
        self.history = History(population.keys)
        self.handed_on = 0
        self.summary: dict[str, Tensor] = {}
        self.seconds_each = 0.0
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def _of_each(self, number: Callable[[Training], float]) -> Float[Tensor, " replica"]:
        """A number of each replica's training."""
        return torch.tensor([number(run.training) for run in self.population.runs], device=self.device)

    @staticmethod
    def begin(population: Population, device: torch.device) -> "Learner":
        """A population before its first update."""
        return Learner(population, device, population.initial_parameters())

    @staticmethod
    def resume(population: Population, device: torch.device, path: Path | None) -> "Learner | None":
        """A population as the checkpoint at `path` left it; None when there is no such file."""
        if path is None or not path.exists():
            return None
        state = load_checkpoint(path, population.keys)
        replicas = state["replicas"]
        learner = Learner(population, device, replicas["parameters"])
        learner.step = state["step"]
        learner.engine = state.get("engine", "reference")
        learner.complete = state["complete"]
        learner.handed_on = state["handed_on"]
        learner._seconds_before = state["seconds"]
        learner._optimiser.load_state_dict({**learner._optimiser.state_dict(), "state": state["optimiser"]})
        learner.active = replicas["active"].to(device)
        learner._any_active = bool(replicas["active"].any())
        learner._diverged_at = replicas["diverged_at"].to(device)
        learner._ended_at, learner._passes = replicas["ended_at"], replicas["passes"]
        learner._solved_at = replicas["solved_at"]
        learner._pruned_at = replicas.get("pruned_at", learner._pruned_at)
        learner.summary = replicas["summary"]
        learner.seconds_each = state["seconds_each"]
        learner.history = History.restore(population.keys, state["history"], state["place"])
        return learner

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        save_checkpoint(
            path,
            {
                "keys": list(self.population.keys),
                "structure": self.population.runs[0].structure,
                "step": self.step,
                "engine": self.engine,
                "complete": self.complete,
                "handed_on": self.handed_on,
                "seconds": self.seconds,
                "seconds_each": self.seconds_each,
                "replicas": {
                    "parameters": {name: value.detach().cpu() for name, value in self.parameters.items()},
                    "active": self.active.cpu(),
                    "diverged_at": self._diverged_at.cpu(),
                    "ended_at": self._ended_at,
                    "passes": self._passes,
                    "solved_at": self._solved_at,
                    "pruned_at": self._pruned_at,
                    "summary": self.summary,
                },
                "optimiser": self._optimiser.state_dict()["state"],
                "history": self.history.state(),
            },
        )

    @property
    def seconds(self) -> float:
        """Wall time spent on the population, interruptions left out."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def any_active(self) -> bool:
        """Whether any replica was still training at the last check."""
        return self._any_active

    def backward(self, loss: Float[Tensor, " replica"]) -> dict[str, Tensor]:
        """The parameter gradients of each replica's loss; also fills what observes the gradient through time."""
        for parameter in self.parameters.values():
            parameter.grad = None
        # Replicas share no parameter, so the gradient of the sum holds each replica's own.
        loss.sum().backward()
        return {
            name: torch.zeros_like(value) if value.grad is None else value.grad
            for name, value in self.parameters.items()
        }

    def regularise(self, gradients: Gradients, trajectories: Sequence[Trajectory]) -> tuple[Gradients, list[Reading]]:
        """The gradients with strength · ∂⁺Omega/∂W_hh added, and as readings Omega and the share that counts in it.

        The trajectories are the observed ones of the backward pass that gave the gradients.
        """
        model, rule = self.population.model, self.population.training.omega
        if rule is None:
            return gradients, []
        added, readings = dict(gradients), []
        for layer, trajectory in enumerate(trajectories):
            name = model.label("W_hh", layer)
            term = rule.term(model.cell, self.parameters[name], trajectory.values("h"), trajectory.gradient("h"))
            added[name] = gradients[name] + per_replica(self._strengths, term.gradient) * term.gradient
            readings.append(Reading(f"learning/{model.label('omega', layer)}", term.value, (), ""))
            readings.append(Reading(f"learning/{model.label('omega_live', layer)}", term.live, (), "share"))
        return added, readings

    def clip(self, gradients: Gradients) -> Gradients:
        """The gradients after each replica's clipping rule."""
        rule = self.population.training.clip
        return gradients if rule is None else rule.apply(gradients, self._thresholds)

    def update(self, loss: Float[Tensor, " replica"], before: Gradients, after: Gradients) -> None:
        """One update of every active replica; a replica whose loss or gradient is not finite has diverged and stops.

        Decided on the device: the host does not wait.
        """
        finite = loss.detach().isfinite() & global_norms(before).isfinite()
        self._diverged_at = torch.where(self.active & ~finite, self.step, self._diverged_at)
        self.active = self.active & finite
        training = self.population.training
        rates = self._rates * training.schedule.factor(self.step, training.steps)
        with torch.no_grad():
            active = self.active[:, None]
            self._buffer.zero_()
            self._buffer.grad = torch.where(active, side_by_side(after), 0.0)
            self._optimiser.step()
            change = self._buffer
            if training.weight_decay is not None:
                change = change - self._decays[:, None] * side_by_side(self.parameters)
            steps = torch.where(active, rates[:, None] * change, 0.0)
            widths = [value[0].numel() for value in self.parameters.values()]
            for value, step in zip(self.parameters.values(), steps.split(widths, dim=1), strict=True):
                value += step.view_as(value)
        self.step += 1

    def decide(self, judged: Mapping[str, Float[Tensor, " replica"]]) -> None:
        """The host's look at a check: keep the validation readings, fetch all, and stop what has solved its task."""
        training, criterion = self.population.training, self.population.task.criterion
        units = {"error": criterion.error}
        readings = [Reading(f"learning/{name}", values, (), units.get(name, "")) for name, values in judged.items()]
        self.take(readings, self.step, spacing=training.check_every)
        self.history.fetch(time.time())
        active = self.active.cpu()
        passed = torch.tensor([criterion.met(error) for error in judged["error"].tolist()])
        self._passes = torch.where(passed, self._passes + 1, 0)
        twice = active & (self._passes == PASSES_TO_STOP) & (self._solved_at == NEVER)
        # The last check may follow sooner than `check_every` after the one before it.
        check_before = (self.step - 1) // training.check_every * training.check_every
        self._solved_at = torch.where(twice, check_before, self._solved_at)
        if training.stop_when_solved:
            self._ended_at = torch.where(twice, self.step, self._ended_at)
            self.active = self.active & ~twice.to(self.device)
        self._any_active = bool(self.active.any())
        self._errors = judged["error"].double().cpu()
        self._at_last_check = self._progress(self.active.cpu(), judged["error"])

    def check(self) -> Check:
        """The errors of the last check, which has just been made."""
        errors = torch.where(self.diverged() | ~self._errors.isfinite(), torch.inf, self._errors).tolist()
        pruned = self.pruned().tolist()
        return Check(
            self.step, {key: errors[index] for index, key in enumerate(self.population.keys) if not pruned[index]}
        )

    def prune(self, keys: Collection[str]) -> None:
        """Stop the replicas of these runs where they are. Keys of other runs, and of runs that have ended, are
        ignored."""
        named = torch.tensor([key in keys for key in self.population.keys])
        pruned = named & self.active.cpu()
        self._pruned_at = torch.where(pruned, self.step, self._pruned_at)
        self.active = self.active & ~pruned.to(self.device)
        self._any_active = bool(self.active.any())

    def stopped_at(self) -> Int[Tensor, " replica"]:
        """Updates that each replica has made: up to where it solved, diverged or was pruned, otherwise all."""
        diverged_at = self._diverged_at.cpu()
        ended = torch.where(self._ended_at == NEVER, self.step, self._ended_at)
        ended = torch.where(self._pruned_at == NEVER, ended, self._pruned_at)
        return torch.where(diverged_at == NEVER, ended, diverged_at)

    def diverged(self) -> Bool[Tensor, " replica"]:
        return self._diverged_at.cpu() != NEVER

    def pruned(self) -> Bool[Tensor, " replica"]:
        return self._pruned_at != NEVER

    def take(self, readings: Sequence[Reading], step: int | Tensor, spacing: int) -> None:
        """Keep readings made after `step` updates; those named `summary/…` go to the table of runs."""
        for reading in readings:
            if reading.name.startswith(SUMMARY):
                self.summary[reading.name.removeprefix(SUMMARY)] = reading.values.detach().double().cpu()
        self.history.add([one for one in readings if not one.name.startswith(SUMMARY)], step, spacing)

    def finish(self, test: Mapping[str, Float[Tensor, " replica"]]) -> None:
        """Close the training with the measures on the test sequences, by which `solved` is judged.

        A replica that the last update threw out of the finite numbers has diverged too. Pruned replicas are not
        judged; where all were pruned, there is nothing to measure, and `test` is empty.
        """
        finite = test["error"].isfinite() if test else torch.ones_like(self.active)
        for value in self.parameters.values():
            finite = finite & value.detach().isfinite().flatten(1).all(1)
        stopped = self.stopped_at().to(self.device)
        leaves = (self._diverged_at == NEVER) & ~finite & ~self.pruned().to(self.device)
        self._diverged_at = torch.where(leaves, stopped, self._diverged_at)
        unjudged = self.diverged() | self.pruned()
        for name, values in test.items():
            # What a diverged run was before it left the finite numbers is nothing to be judged by.
            self.summary[name] = torch.where(unjudged, torch.nan, values.double().cpu())
        self.seconds_each = self.seconds / len(self.population.runs)
        self.history.fetch(time.time())
        self.complete = True

    def progress(self) -> TrainingProgress:
        """For a display: the step, and the numbers of the last check. The host does not wait for the device."""
        return dataclasses.replace(self._at_last_check, step=self.step)

    def _progress(self, active: Tensor, error: Tensor) -> TrainingProgress:
        loss = self.history.last("learning/loss")
        return TrainingProgress(
            step=self.step,
            steps=self.population.training.steps,
            active=int(active.sum()),
            loss=float(loss[active].nanmedian()) if loss is not None and active.any() else math.nan,
            error=float(error.nan_to_num(nan=torch.inf).min()),
        )

    def new_records(self) -> Iterator[Record]:
        """The blocks of readings not handed on yet."""
        stopped = self.stopped_at().tolist()
        for block in range(self.handed_on, self.history.blocks):
            for replica, key in enumerate(self.population.keys):
                series = self.history.series(replica, stopped[replica], block, block + 1)
                if series:
                    step = max(int(one.steps[-1]) for one in series.values())
                    yield Record(key, step, self.history.times[block], series)
        self.handed_on = self.history.blocks

    def last_records(self, engine: str) -> Iterator[Record]:
        """For each replica the record that ends it: its outcome, all its readings and its weights."""
        stopped, endings = self.stopped_at().tolist(), self._endings()
        criterion = self.population.task.criterion
        for replica, key in enumerate(self.population.keys):
            summary = {
                name: float(values[replica])
                for name, values in self.summary.items()
                if bool(values[replica].isfinite())
            }
            solved_at = int(self._solved_at[replica])
            status, reason = endings[replica]
            outcome = Outcome(
                status=status,
                step=stopped[replica],
                solved=criterion.met(float(self.summary["error"][replica])) if status == "finished" else None,
                steps_to_solve=None if solved_at == NEVER else solved_at,
                seconds=self.seconds_each,
                engine=engine,
                reason=f"{reason} at step {stopped[replica]}" if reason else "",
                summary=summary,
            )
            weights = {name: value[replica].detach().cpu().numpy() for name, value in self.parameters.items()}
            if status == "pruned":
                weights = None
            series = self.history.series(replica, stopped[replica])
            yield Record(key, stopped[replica], self.history.times[-1], series, outcome, weights)

    def _endings(self) -> list[tuple[Status, str]]:
        """For each replica its status, and what to say of one that did not come to its end."""
        endings: list[tuple[Status, str]] = []
        for diverged, pruned in zip(self.diverged().tolist(), self.pruned().tolist(), strict=True):
            if diverged:
                endings.append(("diverged", "loss or gradient not finite"))
            else:
                endings.append(("pruned", "given up by its search") if pruned else ("finished", ""))
        return endings
