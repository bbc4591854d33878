"""Blocks: what stands around a recurrence in the networks of today."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, silu

from rnnstudy.cells.cell import Parameter, Parameters
from rnnstudy.cells.draws import constant
from rnnstudy.cells.products import product
from rnnstudy.spec import Spec, above, at_least


class Block(Spec):
    """A layer as modern recurrences have it: r + mix(recurrence(norm(r))), around a stream r that passes all layers.

    The network first maps its inputs to a stream of `cell.width` numbers at each step, and at the end reads the
    normalised stream; layer l adds to it, at each step t:

        r⁰_t = x_t W_encoder,    n_t = norm(rˡ⁻¹_t),    h_1, …, h_T = recurrence(n_1, …, n_T),
        rˡ_t = rˡ⁻¹_t + mix(h_t),    ŷ_t = norm(r_tᴸ) W_ho + b_o

    Without `residual` the new stream is mix(h_t) alone. `norm`: "rms" is r ⊙ g/√(mean r² + `epsilon`), "layer" is (r −
    mean r) ⊙ g/√(var r + `epsilon`) + s with the biased variance, "none" is r; g begins at 1, s at 0, by every
    initialisation. `mix`, without biases, with the row vectors h and n:

        "gate": (h ⊙ SiLU(n W_gate)) W_out                     as in Mamba; with GELU in Griffin
        "glu":  (a W_out) ⊙ σ(a W_gate),  a = GELU(h)           as in S4 and LRU
        "mlp":  GELU(h W_gate) W_out, `expansion` · `cell.width` units wide

    GELU is x Φ(x). In a bidirectional layer, h is the states of both directions side by side.
    """

    source: ClassVar[str] = "Gu & Dao 2023 (Mamba), De et al. 2024 (Griffin), Orvieto et al. 2023 (LRU)"

    norm: Literal["rms", "layer", "none"] = "rms"
    mix: Literal["gate", "glu", "mlp"] = "gate"
    residual: bool = True
    expansion: Annotated[int, at_least(1)] = 2
    epsilon: Annotated[float, above(0)] = 1e-5

    def parameters(self, width: int, states: int) -> dict[str, Parameter]:
        """Those of one layer. `width`: numbers of the stream; `states`: units that the mix reads."""
        inner = {"gate": (width, states), "glu": (states, width), "mlp": (states, self.expansion * width)}[self.mix]
        outer = {"gate": (states, width), "glu": (states, width), "mlp": (self.expansion * width, width)}[self.mix]
        return {
            **self.norm_parameters(width),
            "W_gate": Parameter("output", inner, ("mix",)),
            "W_out": Parameter("output", outer, ("mix",)),
        }

    def norm_parameters(self, width: int) -> dict[str, Parameter]:
        """Those of one normalisation."""
        scale = {"norm_scale": Parameter("norm", (width,), ("norm",)).drawn_by(constant(1.0))}
        shift = {"norm_shift": Parameter("norm", (width,), ("norm",)).drawn_by(constant(0.0))}
        return {"rms": scale, "layer": scale | shift, "none": {}}[self.norm]

    def normalised(
        self, parameters: Parameters, stream: Float[Tensor, "replica rows width"]
    ) -> Float[Tensor, "replica rows width"]:
        """norm(r)."""
        if self.norm == "none":
            return stream
        scale = parameters["norm_scale"].unsqueeze(1)
        if self.norm == "rms":
            return stream * scale * (stream.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        centred = stream - stream.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return centred * scale * deviation + parameters["norm_shift"].unsqueeze(1)

    def added(
        self,
        parameters: Parameters,
        stream: Float[Tensor, "replica rows width"],
        normalised: Float[Tensor, "replica rows width"],
        *states: Float[Tensor, "replica rows _"],
    ) -> Float[Tensor, "replica rows width"]:
        """The stream after the layer: r + mix(h), with h the `states` of all directions side by side."""
        h, gate, out = torch.cat(states, dim=-1), parameters["W_gate"], parameters["W_out"]
        if self.mix == "gate":
            mixed = product(h * silu(product(normalised, gate)), out)
        elif self.mix == "glu":
            activated = gelu(h)
            mixed = product(activated, out) * product(activated, gate).sigmoid()
        else:
            mixed = product(gelu(product(h, gate)), out)
        return stream + mixed if self.residual else mixed
