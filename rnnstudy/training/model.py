"""The network of a population: layers of cells and a readout."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.cells.block import Block
from rnnstudy.cells.cell import Cell, Parameter, Parameters, layer_label
from rnnstudy.cells.initialisation import Initialisation
from rnnstudy.cells.one_hot import vectors
from rnnstudy.cells.products import product
from rnnstudy.engines.engine import Cuts, Engine, Trajectory, steps_taken
from rnnstudy.tasks.task import Task, supervision


@dataclass(frozen=True)
class Model:
    """`layers` cells on top of each other; each layer reads the whole output sequence of the layer below.

    With an `embedding`, the lowest layer reads x_t W_xe, of that width: where inputs are symbols, a learned vector for
    each symbol.
    Unless the cell owns its readout, ŷ_t = h_t W_ho + b_o reads the topmost layer's output state.

    A bidirectional layer has two recurrences, with weights of their own: one reads the sequence from its first step,
    the reverse one from its last. The next layer reads the states of both directions at each step, side by side, and so
    does the readout; where a sequence is judged at its end alone (`ends_only`), it reads the last state of each
    direction. `block` says what stands around the recurrence of each layer.

    `recurrences` are the cells in all layers and directions, in this order: layer 1, layer 1 reverse, layer 2, ….
    """

    cell: Cell
    layers: int
    features: int
    outputs: int
    embedding: int | None = None
    block: Block | None = None
    bidirectional: bool = False
    ends_only: bool = False

    @staticmethod
    def of(
        task: Task,
        cell: Cell,
        layers: int,
        embedding: int | None = None,
        block: Block | None = None,
        bidirectional: bool = False,
    ) -> "Model":
        return Model(
            cell=cell,
            layers=layers,
            features=task.features,
            outputs=task.outputs,
            embedding=embedding,
            block=block,
            bidirectional=bidirectional,
            ends_only=bidirectional and supervision(task) == "at the end",
        )

    @property
    def directions(self) -> tuple[bool, ...]:
        """For each direction of a layer, whether it is the reverse one."""
        return (False, True) if self.bidirectional else (False,)

    @property
    def reverse(self) -> tuple[bool, ...]:
        """For each recurrence, whether it is of the reverse direction."""
        return self.directions * self.layers

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the names of each recurrence end with in this network: `_layer2_reverse`."""
        return tuple(
            layer_label("", layer, self.layers) + ("_reverse" if reverse else "")
            for layer in range(self.layers)
            for reverse in self.directions
        )

    @property
    def widths(self) -> dict[str, int]:
        """Units of each state of a layer."""
        return {state: self.cell.state_width(state, self.outputs) for state in self.cell.states}

    @property
    def states_read(self) -> int:
        """Units of the output states of all directions side by side."""
        return len(self.directions) * self.widths[self.cell.output]

    @property
    def stream_width(self) -> int:
        """Numbers at each step that a layer passes to the next one."""
        return self.states_read if self.block is None else self.widths[self.cell.output]

    def layer_parameters(self, layer: int) -> dict[str, Parameter]:
        """Those of the recurrence of a layer, the same in both directions."""
        features = self.features_read if layer == 0 and self.block is None else self.stream_width
        return self.cell.parameters(features, self.outputs)

    def block_parameters(self, layer: int) -> dict[str, Parameter]:
        """Those of the block around the recurrence of a layer, under their names in this network."""
        if self.block is None:
            return {}
        own = self.block.parameters(self.stream_width, self.states_read)
        return {layer_label(name, layer, self.layers): item for name, item in own.items()}

    @property
    def stream_parameters(self) -> dict[str, Parameter]:
        """Those of the map from the inputs to the stream of blocks, and of the normalisation before the readout."""
        if self.block is None:
            return {}
        norm = {f"readout_{name}": item for name, item in self.block.norm_parameters(self.stream_width).items()}
        return {"W_encoder": Parameter("input", (self.features_read, self.stream_width), ("r",)), **norm}

    @property
    def features_read(self) -> int:
        """Numbers at each step that the lowest layer reads, or the encoder of a stream."""
        return self.embedding or self.features

    @property
    def embedding_parameters(self) -> dict[str, Parameter]:
        if self.embedding is None:
            return {}
        return {"W_xe": Parameter("embedding", (self.features, self.embedding), ("e",))}

    @property
    def readout_parameters(self) -> dict[str, Parameter]:
        if self.cell.owns_readout:
            return {}
        return {
            "W_ho": Parameter("readout", (self.stream_width, self.outputs), ("o",)),
            "b_o": Parameter("readout bias", (self.outputs,), ("o",)),
        }

    def label(self, name: str, recurrence: int) -> str:
        """The name of a parameter of a recurrence in this network: `W_hh`, or `W_hh_layer2` in a deeper one."""
        return name + self.suffixes[recurrence]

    def own(self, parameters: Parameters, recurrence: int) -> dict[str, Tensor]:
        """The parameters of one recurrence, counted from 0, under the cell's own names."""
        names = self.layer_parameters(recurrence // len(self.directions))
        return {name: parameters[self.label(name, recurrence)] for name in names}

    def draw(self, initialisation: Initialisation, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial parameters of one replica, without the replica axis."""
        drawn = initialisation.draw(self.embedding_parameters, self.cell.width, generator)
        for recurrence, suffix in enumerate(self.suffixes):
            own = self.layer_parameters(recurrence // len(self.directions))
            values = initialisation.draw(own, self.cell.width, generator)
            drawn.update({name + suffix: value for name, value in values.items()})
        around = [self.stream_parameters, *map(self.block_parameters, range(self.layers))]
        for name, parameter in (item for group in around for item in group.items()):
            # As torch.nn.Linear, by the number of inputs of each map.
            drawn |= initialisation.draw({name: parameter}, parameter.shape[0], generator)
        return drawn | initialisation.draw(self.readout_parameters, self.cell.width, generator)

    def forward(
        self,
        engine: Engine,
        parameters: Parameters,
        inputs: Float[Tensor, "time replica batch features"] | Int[Tensor, "time replica batch 1"],
        *,
        steps: Sequence[int],
        observed: bool,
        cuts: Sequence[Cuts] | None = None,
        constant_norm: bool = False,
        ends: Int[Tensor, "replica batch"] | None = None,
    ) -> tuple[Float[Tensor, "step replica batch outputs"], list[Trajectory]]:
        """Outputs at the time indices `steps`, counted from 0, and each recurrence's trajectory, lowest layer first.

        The trajectory of a reverse recurrence is in its own order: its first step is the last one of the sequence.

        `inputs`: numbers, or symbols (−1: nothing), which stand for one-hot vectors.
        `cuts`: for each recurrence, where no gradient passes from a step to the one before.
        `constant_norm`: see `Engine.unroll`.
        `ends`: index of the last step of each sequence, where the reverse direction begins; of all steps when None.
        """
        trajectories: list[Trajectory] = []
        unroll = functools.partial(
            engine.unroll, self.cell, widths=self.widths, observed=observed, constant_norm=constant_norm
        )

        def recurrence(read: Tensor, output_steps: Sequence[int] | None) -> Tensor:
            """The outputs of the next recurrence, which reads `read`."""
            index = len(trajectories)
            own, cut = self.own(parameters, index), cuts[index] if cuts else None
            vocabulary = None if read.is_floating_point() else self.features
            trajectories.append(unroll(own, read, steps=output_steps, cuts=cut, vocabulary=vocabulary))
            return trajectories[-1].outputs

        below = inputs
        if self.embedding is not None:
            below = engine.positionwise(self._mapped, {"W": parameters["W_xe"]}, inputs)
        if self.block is None and not self.bidirectional:
            for layer in range(self.layers):
                below = recurrence(below, steps if layer == self.layers - 1 else None)
        else:
            read = engine.stream(below) if below.is_floating_point() else engine.symbols(below, self.features)
            below = self._through_layers(engine, parameters, read, steps, ends, recurrence)
        if self.cell.owns_readout:
            return below, trajectories
        return readout(below, parameters["W_ho"], parameters["b_o"]), trajectories

    def _through_layers(
        self,
        engine: Engine,
        parameters: Parameters,
        below: Tensor,
        steps: Sequence[int],
        ends: Tensor | None,
        recurrence: Callable[[Tensor, Sequence[int] | None], Tensor],
    ) -> Tensor:
        """What the readout reads at `steps`, with both directions of a layer and the block around it."""
        order = reversal(len(below), ends, below.device)
        chosen = torch.tensor(list(steps), device=below.device).view(-1, 1, 1)
        if self.block is not None:
            below = engine.stream(engine.positionwise(self._mapped, {"W": parameters["W_encoder"]}, below))
        for layer in range(self.layers):
            last = layer == self.layers - 1
            read, around = below, {}
            if self.block is not None:
                names = self.block.parameters(self.stream_width, self.states_read)
                around = {name: parameters[layer_label(name, layer, self.layers)] for name in names}
                norm = {name: around.pop(name) for name in self.block.norm_parameters(self.stream_width)}
                read = engine.positionwise(self.block.normalised, norm, below)
            states = []
            for reverse in self.directions:
                if not reverse:
                    states.append(recurrence(read, steps if last else None))
                elif last and self.ends_only:
                    # In its own order, the last state of the reverse direction is at the last step of the sequence.
                    states.append(recurrence(engine.taken(read, order), steps))
                else:
                    own_order = recurrence(engine.taken(read, order), None)
                    states.append(engine.taken(own_order, order[list(steps)] if last else order))
            if self.block is None:
                below = engine.positionwise(_side_by_side, {}, *states)
            else:
                before = [engine.taken(values, chosen) for values in (below, read)] if last else (below, read)
                below = engine.positionwise(self.block.added, around, *before, *states)
            if not last:
                below = engine.stream(below)
        if self.block is None:
            return below
        norm = {name: parameters[f"readout_{name}"] for name in self.block.norm_parameters(self.stream_width)}
        return engine.positionwise(self.block.normalised, norm, below)

    def _mapped(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """x W: of symbols, rows of W."""
        if inputs.is_floating_point():
            return product(inputs, parameters["W"])
        return torch.bmm(vectors(inputs, self.features, parameters), parameters["W"])

    def in_time(
        self, trajectories: Sequence[Trajectory], ends: Int[Tensor, "replica batch"] | None = None
    ) -> list[Trajectory]:
        """The trajectories of all recurrences, those of the reverse direction by the steps of the sequence."""
        return [
            _InTime(trajectory, ends) if reverse else trajectory
            for trajectory, reverse in zip(trajectories, self.reverse, strict=True)
        ]


class _InTime(Trajectory):
    """The trajectory of a reverse recurrence, by the steps of the sequence."""

    def __init__(self, own_order: Trajectory, ends: Tensor | None) -> None:
        self._own_order, self._ends = own_order, ends

    def log_norms(self, state: str) -> Float[Tensor, "time replica batch"]:
        norms = self._own_order.log_norms(state)
        return steps_taken(norms, reversal(len(norms), self._ends, norms.device))


def reversal(time: int, ends: Tensor | None, device: torch.device) -> Int[Tensor, "time #replica #batch"]:
    """Index of the step that stands at each step when every sequence is in the opposite order.

    What follows the end of a sequence stays where it is. Reversed twice, a sequence is as it was.
    """
    steps = torch.arange(time, device=device)[:, None, None]
    if ends is None:
        return steps.flip(0)
    return torch.where(steps <= ends, ends - steps, steps)


def _side_by_side(parameters: Parameters, *states: Tensor) -> Tensor:
    return torch.cat(states, dim=-1)


def readout(
    states: Float[Tensor, "step replica batch width"],
    weights: Float[Tensor, "replica width outputs"],
    bias: Float[Tensor, "replica outputs"],
) -> Float[Tensor, "step replica batch outputs"]:
    """ŷ = h W_ho + b_o, as one matrix product for each replica."""
    steps, replicas, batch, width = states.shape
    rows = states.transpose(0, 1).reshape(replicas, steps * batch, width)
    return product(rows, weights, bias).view(replicas, steps, batch, weights.shape[-1]).transpose(0, 1)
