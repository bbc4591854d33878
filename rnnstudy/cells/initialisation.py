"""Initial weights. One class for each published rule, which fills the parameters of one replica from one generator."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell, Parameter
from rnnstudy.spec import Spec, SpecError, above, at_least, between


class GateBias(Spec):
    """A rule for the biases of the forget gate and the input gate, applied after all weights have been drawn."""

    source: ClassVar[str]

    needs: ClassVar[tuple[Literal["forget", "input"], ...]]
    """The gates that the rule needs a cell to have."""

    @abstractmethod
    def apply(self, forget: Tensor, store: Tensor, generator: torch.Generator) -> None:
        """Overwrite the biases (width) of the forget gate and the input gate of one replica.

        The tensor of a gate that the cell does not have is empty.
        """


class ForgetBias(GateBias):
    """b_f = `value`; the other biases are unchanged. 1 is common since Gers et al. 2000 and Jozefowicz et al. 2015.

    In a GRU it is the bias b_z.
    """

    source: ClassVar[str] = "Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015"
    needs: ClassVar[tuple[Literal["forget", "input"], ...]] = ("forget",)

    value: float = 1.0

    def apply(self, forget: Tensor, store: Tensor, generator: torch.Generator) -> None:
        forget.fill_(self.value)


class InputBias(GateBias):
    """b_i = `values`, distributed evenly over the units in their order; the other biases are unchanged.

    Negative values keep the gates closed until training opens them: −3, −6 for adding and −2, −4 (and −6) for temporal
    order in Hochreiter & Schmidhuber 1997, sections 5.4 and 5.6.
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, sections 5.4 and 5.6"
    needs: ClassVar[tuple[Literal["forget", "input"], ...]] = ("input",)

    values: tuple[float, ...] = (-3.0, -6.0)

    def check(self) -> None:
        if not self.values:
            raise SpecError("InputBias.values is empty; it takes at least one number")

    def apply(self, forget: Tensor, store: Tensor, generator: torch.Generator) -> None:
        index = torch.arange(len(store)) * len(self.values) // len(store)
        store.copy_(torch.tensor(self.values)[index])


class Chrono(GateBias):
    """b_f = log u with u uniform on [1, `longest` − 1], and b_i = −b_f: forgetting times of up to `longest` steps.

    In a GRU, b_z = log u. `longest` is the longest expected dependency, T_max in the paper.

    Source: Tallec & Ollivier 2018, who call it chrono initialisation.
    """

    source: ClassVar[str] = "Tallec & Ollivier 2018 (chrono initialisation)"
    needs: ClassVar[tuple[Literal["forget", "input"], ...]] = ("forget",)

    longest: Annotated[int, at_least(3)]

    def apply(self, forget: Tensor, store: Tensor, generator: torch.Generator) -> None:
        drawn = torch.rand(forget.shape, generator=generator)
        forget.copy_(torch.log(1 + drawn * (self.longest - 2)))
        if store.numel():
            store.copy_(-forget)


class Initialisation(Spec):
    """A rule for the initial weights: `fill` draws each block, then `gate_bias` sets the biases of the gates."""

    source: ClassVar[str]

    gate_bias: GateBias | None = None

    @abstractmethod
    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        """The initial values of one block, described by `parameter`. `fan_in`: the width of the layer."""

    square: ClassVar[bool] = False
    """Whether the rule needs square recurrent matrices."""

    def leaves_to_source(self, parameter: Parameter) -> bool:
        """Whether what a cell's source says about drawing `parameter` goes before `fill`: rules are about matrices."""
        return parameter.role in ("diagonal", "norm")

    def check_compatible(self, cell: Cell) -> None:
        """Raises `SpecError` when the rule cannot be used with the cell."""
        # With outputs ≠ width, only matrices that are square for every number of outputs are square.
        parameters = cell.parameters(1, cell.width + 1)
        if self.square and not any(parameter.role == "recurrent" for parameter in parameters.values()):
            raise SpecError(f"{self!r} needs square recurrent matrices, and {type(cell).__name__} has none")
        for name, parameter in parameters.items():
            rows, columns = parameter.shape[0], parameter.shape[-1] // len(parameter.blocks)
            if self.square and parameter.role == "recurrent" and rows != columns:
                raise SpecError(f"{self!r} needs square recurrent matrices, and {name} of {type(cell).__name__} is not")
        if self.gate_bias is None:
            return
        gates = {
            "forget": any(parameter.forget_gate for parameter in parameters.values()),
            "input": any(parameter.input_gate for parameter in parameters.values()),
        }
        missing = [gate for gate in self.gate_bias.needs if not gates[gate]]
        if missing:
            raise SpecError(f"{cell!r} has no {' and '.join(missing)} gate for {self.gate_bias!r}; leave gate_bias out")

    def draw(self, parameters: Mapping[str, Parameter], width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial values of the parameters of one layer of one replica, drawn in the order of `parameters`."""
        drawn: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            shape = (*parameter.shape[:-1], parameter.shape[-1] // len(parameter.blocks))
            blocks = {}
            for block in parameter.blocks:
                draw = parameter.published.get(block) if self.leaves_to_source(parameter) else None
                if draw is None:
                    own = Parameter(parameter.role_of(block), shape, (block,))
                    blocks[block] = self.fill(own, shape, width, generator)
                else:
                    blocks[block] = draw(shape, generator, drawn)
            if self.gate_bias is not None and (parameter.forget_gate or parameter.input_gate):
                none = torch.empty(0)
                forget, store = (blocks.get(gate or "", none) for gate in (parameter.forget_gate, parameter.input_gate))
                self.gate_bias.apply(forget, store, generator)
            drawn[name] = torch.cat(list(blocks.values()), dim=-1)
        return drawn


class PyTorchDefault(Initialisation):
    """The default of torch.nn.RNN, LSTM, GRU and Linear: all parameters U(−1/√H, 1/√H), with H the width.

    An embedding is N(0, 1), as in torch.nn.Embedding.
    A recurrent layer of torch.nn has two biases; a cell has one bias instead, the sum of two such draws (the candidate
    of the GRU has two biases here too).
    """

    source: ClassVar[str] = "torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear, torch.nn.Embedding"

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        return _pytorch_default(parameter, shape, fan_in, generator)


class Published(Initialisation):
    """As the source of the cell draws its parameters; where it says nothing, PyTorch's default.

    The docstring of each cell says what that is.
    """

    source: ClassVar[str] = "the source of each cell"

    def leaves_to_source(self, parameter: Parameter) -> bool:
        return True

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        return _pytorch_default(parameter, shape, fan_in, generator)


class Orthogonal(Initialisation):
    """Recurrent matrices are `gain` times a random orthogonal matrix, one per gate; the rest is PyTorch's default.

    The orthogonal matrix is uniform (Haar): Q of the QR decomposition of a Gaussian matrix, with a positive diagonal of
    R. All singular values of W_hh equal `gain`, so the gradient through time of a linear network is gain^lag.

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


class Glorot(Initialisation):
    """All matrices U(−a, a) with a = √(6/(n_in + n_out)), separately for each gate; all biases 0.

    n_in and n_out are the rows and columns of the block. Source: Glorot & Bengio 2010, equation 16.
    """

    source: ClassVar[str] = "Glorot & Bengio 2010, equation 16; torch.nn.init.xavier_uniform_"

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        if _is_bias(parameter):
            return torch.zeros(shape)
        return (2 * torch.rand(shape, generator=generator) - 1) * math.sqrt(6 / sum(shape))


class Identity(Initialisation):
    """IRNN: recurrent matrices are `gain` times the identity, for each gate; other weights N(0, `std`²), biases 0.

    Meant for Elman(activation="relu"), which then adds up its inputs at first: ∂h_t/∂h_{t-1} = `gain` · I where the
    units are active. Source: Le, Jaitly & Hinton 2015, section 2.
    """

    source: ClassVar[str] = "Le, Jaitly & Hinton 2015, section 2 (IRNN)"
    square: ClassVar[bool] = True

    gain: Annotated[float, above(0)] = 1.0
    std: Annotated[float, above(0)] = 0.001

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        if parameter.role == "recurrent":
            return self.gain * torch.eye(shape[0])
        return self.std * _standard_normal_or_zero(parameter, shape, generator)


class SpectralRadius(Initialisation):
    """Recurrent matrices are Gaussian, rescaled to the spectral radius `radius`; the rest is PyTorch's default.

    The largest modulus of an eigenvalue is exactly `radius`; the largest singular value is about twice as large, so the
    matrix is not normal, unlike `Orthogonal`. Source: Jaeger 2001 (echo state networks), section 3.
    """

    source: ClassVar[str] = "Jaeger 2001 (echo state networks), section 3"
    square: ClassVar[bool] = True

    radius: Annotated[float, between(0.01, 100)] = 1.0

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        if parameter.role != "recurrent":
            return _pytorch_default(parameter, shape, fan_in, generator)
        drawn = torch.randn(shape, generator=generator)
        return drawn * (self.radius / spectral_radius(drawn))


class Gaussian(Initialisation):
    """All weights N(0, `std`²), all biases 0: `sigmoid` (std 0.01) and `basic_tanh` (std 0.1) of Pascanu et al.

    Source: Pascanu, Mikolov & Bengio 2013 (code: RNN.py); the first is for sigmoid units, the second for tanh.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013 (code: RNN.py), 'sigmoid' and 'basic_tanh'"

    std: Annotated[float, above(0)]

    def fill(self, parameter: Parameter, shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
        return self.std * _standard_normal_or_zero(parameter, shape, generator)


class SmartTanh(Initialisation):
    """`smart_tanh` of Pascanu et al.: sparse W_hh with a given spectral radius; other weights N(0, 0.01²), biases 0.

    Each row of W_hh has `connections` random non-zero entries from N(0, 0.01²); then W_hh is rescaled so that its
    largest eigenvalue has modulus `radius`. For tanh units.

    Source: Pascanu, Mikolov & Bengio 2013 (code: RNN.py), after Martens & Sutskever 2011.
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013 (code: RNN.py), 'smart_tanh'"
    square: ClassVar[bool] = True

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
    if parameter.role == "embedding":
        return torch.randn(shape, generator=generator)
    bound = 1 / math.sqrt(fan_in)
    draws = 2 if parameter.role == "bias" else 1
    return sum(((2 * torch.rand(shape, generator=generator) - 1) * bound for _ in range(draws)), torch.zeros(shape))


def _is_bias(parameter: Parameter) -> bool:
    return parameter.role in ("bias", "single bias", "readout bias")


def _standard_normal_or_zero(parameter: Parameter, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if _is_bias(parameter):
        return torch.zeros(shape)
    return torch.randn(shape, generator=generator)
