"""The layer pass of any cell: each step and its vector-Jacobian product by autograd, in calls that can be captured."""

import torch
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.engine import LayerRun
from rnnstudy.engines.layer_pass import LayerGradients, LayerPass
from rnnstudy.engines.layer_unroll import LayerUnroll


class AutogradPass(LayerPass):
    """The steps of `LayerUnroll`, with one exponent for each sequence: see `ScaledEngine`.

    Where it is captured in a CUDA graph, autograd is asked once, and what it launches is replayed.
    """

    unroll: LayerUnroll

    def forward(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        # A capture runs the backward pass several times.
        self.unroll = LayerUnroll(self._run(inputs, parameters), None, repeatable=True)
        return self.unroll.forward(recorded=True)

    def outputs_alone(self, inputs: Tensor, parameters: Parameters) -> Tensor:
        return LayerUnroll(self._run(inputs, parameters), None).forward(recorded=False)

    def _run(self, inputs: Tensor, parameters: Parameters) -> LayerRun:
        of_states = dict(self.widths), self.observed
        return LayerRun(self.cell, parameters, inputs, *of_states, self.output_steps, {}, vocabulary=self.vocabulary)

    def backward(self, at_outputs: Tensor) -> LayerGradients:
        unroll = self.unroll
        unroll.backward(at_outputs)
        at_inputs = unroll.input_gradient().values() if self.input_gradient else None
        parameters = {name: one.values() for name, one in unroll.parameter_gradients().items()}
        norms = None
        if self.observed:
            norms = torch.stack([self.gradient(state).log_norms() for state in self.cell.states])
        return LayerGradients(at_inputs, parameters, norms)

    def values(self, state: str) -> Tensor:
        return torch.stack([values[state] for values in self.unroll.states[1:]])

    def gradient(self, state: str) -> BlockFloat:
        return BlockFloat(self.unroll.total[state], self.unroll.exponent)
