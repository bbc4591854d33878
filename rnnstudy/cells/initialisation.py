"""How weights begin. One class for each published rule; each fills one replica's parameters from one generator."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameter
from rnnstudy.spec import Spec, SpecError, above, at_least, between


class GateBias(Spec):
    """A rule for the biases of forget and input gate, applied after everything else has been drawn."""

    source: ClassVar[str]

    @abstractmethod
    def apply(self, blocks: dict[str, Tensor], generator: torch.Generator) -> None:
        """Overwrite entries of `blocks` (gate name to bias of one replica)."""


class ForgetBias(GateBias):
    """b_f = `value`; the other biases stay. 1 is common practice since Gers et al. 2000 and Jozefowicz et al. 2015."""

    source: ClassVar[str] = "Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015"

    value: float = 1.0

    def apply(self, blocks: dict[str, Tensor], generator: torch.Generator) -> None:
        blocks["f"].fill_(self.value)


class Chrono(GateBias):
    """b_f = log u with u uniform on [1, `longest` − 1], and b_i = −b_f: forgetting times spread up to `longest` steps.

    Source: Tallec & Ollivier 2018, equation 16. `longest` is their T_max, the longest dependency expected.
    """

    source: ClassVar[str] = "Tallec & Ollivier 2018, equation 16"

    longest: Annotated[int, at_least(3)]

    def apply(self, blocks: dict[str, Tensor], generator: torch.Generator) -> None:
        drawn = torch.rand(blocks["f"].shape, generator=generator)
        blocks["f"].copy_(torch.log(1 + drawn * (self.longest - 2)))
        blocks["i"].copy_(-blocks["f"])


class Initialisation(Spec):
    """How weights begin. `fill` draws one block; `gate_bias` then sets the biases of gates, where the cell has them."""

    source: ClassVar[str]

    gate_bias: GateBias | None = None

    @abstractmethod
    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        """One block of a parameter. `fan_in`: units that feed it (the width of the layer, for recurrent layers)."""

    def suits(self, cell: Cell) -> None:
        """Raises `SpecError` when the rule cannot serve the cell."""
        blocks = {block for parameter in cell.parameters(1, 1).values() for block in parameter.blocks}
        if self.gate_bias is not None and not {"f", "i"} <= blocks:
            raise SpecError(
                f"{type(cell).__name__} has no forget and input gate for {self.gate_bias!r}; leave gate_bias out"
            )

    def draw(self, parameters: Mapping[str, Parameter], width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Values for the parameters of one layer of one replica, in the order in which they are declared."""
        drawn = {}
        for name, parameter in parameters.items():
            block_shape = (*parameter.shape[:-1], parameter.shape[-1] // len(parameter.blocks))
            blocks = {block: self.fill(parameter, block_shape, width, generator) for block in parameter.blocks}
            if parameter.role == "bias" and self.gate_bias is not None:
                self.gate_bias.apply(blocks, generator)
            drawn[name] = torch.cat(list(blocks.values()), dim=-1)
        return drawn


class PyTorchDefault(Initialisation):
    """As torch.nn.RNN, torch.nn.LSTM and torch.nn.Linear begin: everything U(−1/√H, 1/√H), with H the width.

    torch.nn's recurrent layers have two biases where ours have their sum, so a bias is the sum of two such draws.
    """

    source: ClassVar[str] = "torch.nn.RNN, torch.nn.LSTM, torch.nn.Linear"

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        return _pytorch_default(parameter, shape, fan_in, generator)


class Orthogonal(Initialisation):
    """Recurrent matrices `gain` times a random orthogonal matrix, one for each gate; the rest as PyTorch's default.

    The orthogonal matrix is uniform (Haar): the Q of a Gaussian matrix's QR decomposition, with R's diagonal positive.
    All singular values of W_hh equal `gain`, so a linear network's gradient through time is gain^lag.

    Source: Saxe, McClelland & Ganguli 2014.
    """

    source: ClassVar[str] = "Saxe, McClelland & Ganguli 2014"

    gain: Annotated[float, above(0)] = 1.0

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        if parameter.role != "recurrent":
            return _pytorch_default(parameter, shape, fan_in, generator)
        square = torch.randn(max(shape), max(shape), generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(square)
        haar = q * r.diagonal().sign()
        return self.gain * haar[: shape[0], : shape[1]].to(torch.get_default_dtype())


class Gaussian(Initialisation):
    """All weights N(0, `std`²), all biases 0: Pascanu's `sigmoid` (std 0.01) and `basic_tanh` (std 0.1).

    Source: Pascanu, Mikolov & Bengio 2013 (code: RNN.py); the first goes with sigmoid units, the second with tanh.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013 (code: RNN.py), 'sigmoid' and 'basic_tanh'"

    std: Annotated[float, above(0)]

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        return self.std * _standard_normal_or_zero(parameter, shape, generator)


class SmartTanh(Initialisation):
    """Pascanu's `smart_tanh`: sparse recurrent rows rescaled to a spectral radius; weights N(0, 0.01²), biases 0.

    Each row of W_hh keeps `connections` random entries of N(0, 0.01²); then W_hh is rescaled so that its largest
    eigenvalue has modulus `radius`. For tanh units.

    Source: Pascanu, Mikolov & Bengio 2013 (code: RNN.py), after Martens & Sutskever 2011.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013 (code: RNN.py), 'smart_tanh'"

    radius: Annotated[float, between(0.01, 100)] = 0.95
    connections: Annotated[int, at_least(1)] = 15

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        drawn = 0.01 * _standard_normal_or_zero(parameter, shape, generator)
        if parameter.role != "recurrent":
            return drawn
        order = torch.rand(shape, generator=generator).argsort(dim=-1)
        sparse = torch.where(order < self.connections, drawn, 0.0)
        return sparse * (self.radius / spectral_radius(sparse))


def spectral_radius(matrix: Tensor) -> float:
    """The largest modulus of an eigenvalue."""
    return torch.linalg.eigvals(matrix.double()).abs().max().item()


def _pytorch_default(parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(fan_in)
    draws = 2 if parameter.role == "bias" else 1
    return sum(((2 * torch.rand(shape, generator=generator) - 1) * bound for _ in range(draws)), torch.zeros(shape))


def _standard_normal_or_zero(parameter: Parameter, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if parameter.role in ("bias", "readout bias"):
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator)
