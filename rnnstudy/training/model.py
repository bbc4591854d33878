"""The network of a population: layers of cells and a readout."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from rnnstudy.cells.cell import Cell, Parameter, Parameters, layer_label
from rnnstudy.cells.initialisation import Initialisation
from rnnstudy.cells.one_hot import vectors
from rnnstudy.engines.engine import Cuts, Engine, Trajectory
from rnnstudy.tasks.task import Task

CACHE_LINE = 16
"""float32 numbers in a cache line of 64 bytes."""


@dataclass(frozen=True)
class Model:
    """`layers` cells on top of each other; each layer reads the whole output sequence of the layer below.

    With an `embedding`, the lowest layer reads x_t W_xe, of that width: where inputs are symbols, a learned vector for
    each symbol.
    Unless the cell owns its readout, ŷ_t = h_t W_ho + b_o reads the topmost layer's output state.
    """

    cell: Cell
    layers: int
    features: int
    outputs: int
    embedding: int | None = None

    @staticmethod
    def of(task: Task, cell: Cell, layers: int, embedding: int | None = None) -> "Model":
        return Model(cell=cell, layers=layers, features=task.features, outputs=task.outputs, embedding=embedding)

    @property
    def widths(self) -> dict[str, int]:
        """Units of each state of a layer."""
        return {state: self.cell.state_width(state, self.outputs) for state in self.cell.states}

    def layer_parameters(self, layer: int) -> dict[str, Parameter]:
        lowest = self.embedding or self.features
        features = lowest if layer == 0 else self.widths[self.cell.output]
        return self.cell.parameters(features, self.outputs)

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
            "W_ho": Parameter("readout", (self.widths[self.cell.output], self.outputs), ("o",)),
            "b_o": Parameter("readout bias", (self.outputs,), ("o",)),
        }

    def label(self, name: str, layer: int) -> str:
        """The name of a layer's parameter in this network: `W_hh`, or `W_hh_layer2` in the second of several layers."""
        return layer_label(name, layer, self.layers)

    def own(self, parameters: Parameters, layer: int) -> dict[str, Tensor]:
        """The parameters of one layer, counted from 0, under the cell's own names."""
        return {name: parameters[self.label(name, layer)] for name in self.layer_parameters(layer)}

    def draw(self, initialisation: Initialisation, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial parameters of one replica, without the replica axis."""
        drawn = initialisation.draw(self.embedding_parameters, self.cell.width, generator)
        for layer in range(self.layers):
            values = initialisation.draw(self.layer_parameters(layer), self.cell.width, generator)
            drawn.update({layer_label(name, layer, self.layers): value for name, value in values.items()})
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
    ) -> tuple[Float[Tensor, "step replica batch outputs"], list[Trajectory]]:
        """Outputs at the time indices `steps`, counted from 0, and each layer's trajectory, lowest first.

        `inputs`: numbers, or symbols (−1: nothing), which stand for one-hot vectors.
        `cuts`: for each layer, where no gradient passes from a step to the one before.
        `constant_norm`: see `Engine.unroll`.
        """
        trajectories: list[Trajectory] = []
        unroll = functools.partial(
            engine.unroll, self.cell, widths=self.widths, observed=observed, constant_norm=constant_norm
        )
        vocabulary = None if inputs.is_floating_point() else self.features
        below = inputs
        if self.embedding is not None:
            below, vocabulary = _embedded(inputs, parameters, vocabulary), None
        for layer in range(self.layers):
            output_steps = steps if layer == self.layers - 1 else None
            cut = cuts[layer] if cuts else None
            own = self.own(parameters, layer)
            trajectory = unroll(own, below, steps=output_steps, cuts=cut, vocabulary=vocabulary)
            trajectories.append(trajectory)
            below, vocabulary = trajectory.outputs, None
        if self.cell.owns_readout:
            return below, trajectories
        return readout(below, parameters["W_ho"], parameters["b_o"]), trajectories


def _embedded(
    inputs: Shaped[Tensor, "time replica batch features"], parameters: Parameters, vocabulary: int | None
) -> Float[Tensor, "time replica batch embedding"]:
    """x_t W_xe."""
    time, replicas, batch, _ = inputs.shape
    rows = vectors(inputs.transpose(0, 1).flatten(1, 2), vocabulary, parameters)
    return torch.bmm(rows, parameters["W_xe"]).view(replicas, time, batch, -1).transpose(0, 1)


def readout(
    states: Float[Tensor, "step replica batch width"],
    weights: Float[Tensor, "replica width outputs"],
    bias: Float[Tensor, "replica outputs"],
) -> Float[Tensor, "step replica batch outputs"]:
    """ŷ = h W_ho + b_o, as one matrix product for each replica.

    Rows are padded to whole cache lines: the bits of a product depend on how its matrices lie in memory, and a run's
    bits must not depend on its place in a population.
    """
    steps, replicas, batch, width = states.shape
    outputs = weights.shape[-1]
    pad_width, pad_outputs = -width % CACHE_LINE, -outputs % CACHE_LINE
    rows = functional.pad(states.transpose(0, 1), (0, pad_width)).reshape(replicas, steps * batch, width + pad_width)
    padded = torch.baddbmm(
        functional.pad(bias, (0, pad_outputs)).unsqueeze(1),
        rows,
        functional.pad(weights, (0, pad_outputs, 0, pad_width)),
    )
    return padded[..., :outputs].view(replicas, steps, batch, outputs).transpose(0, 1)
