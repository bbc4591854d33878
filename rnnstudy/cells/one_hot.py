"""One-hot vectors kept as symbols: their product with a matrix is a row of it, and its gradient a scatter-add."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

NOTHING = -1
"""The symbol of a step at which nothing is read: its vector is zero."""


class OneHot(Tensor):
    """Vectors x (replica, row, vocabulary), each one-hot or zero, of which only the symbols are in memory.

    A product with weights (replica, vocabulary, out) is a gather, (x W)_n = W_k with k the symbol of row n, and its
    gradient dL/dW_k = Σ_n dL/d(x W)_n over the rows n with symbol k a scatter-add: the sums of the dense product
    without their zeros. So it is for `torch.bmm`, `torch.baddbmm`, `torch.matmul` and `@`, whence `Cell.project` is
    written as for numbers. Any other operation works on the dense vectors: right, but slow and large.

    Attributes:
        symbols: (replica, row), from 0 to vocabulary − 1; or −1, whose vector is zero.
    """

    symbols: Tensor
    _like: Tensor

    @staticmethod
    def of(symbols: Int[Tensor, "replica row"], vocabulary: int, dtype: torch.dtype) -> "OneHot":
        """The vectors of these symbols, as numbers of the type `dtype`.

        Raises `IndexError` for a number that is no symbol; not on CUDA, where the host would have to wait for it.
        """
        if symbols.device.type == "cpu" and symbols.numel():
            lowest, highest = (bound.item() for bound in symbols.aminmax())
            if lowest < NOTHING or highest >= vocabulary:
                raise IndexError(f"symbols from {lowest} to {highest}, of a vocabulary of {vocabulary}")
        vectors = symbols.as_subclass(OneHot)
        vectors.symbols = symbols
        # Has the shape, type and device of the dense vectors, and no memory.
        vectors._like = torch.empty((), dtype=dtype, device=symbols.device).expand(*symbols.shape, vocabulary)
        return vectors

    def dense(self) -> Tensor:
        """The vectors as numbers."""
        known = torch.arange(self._like.shape[-1], device=self._like.device)
        return (self.symbols.unsqueeze(-1) == known).to(self._like.dtype)

    def times(self, weights: Float[Tensor, "replica vocabulary out"]) -> Float[Tensor, "replica row out"]:
        """x W."""
        rows = functional.embedding(self._places(), weights.flatten(0, 1))
        return torch.where(self.symbols.unsqueeze(-1) == NOTHING, 0.0, rows)

    def transposed_times(self, values: Float[Tensor, "replica row out"]) -> Float[Tensor, "replica vocabulary out"]:
        """xᵀ v: each row of v added to the row of its symbol, in the order of the rows."""
        replicas, _, vocabulary = self._like.shape
        values = torch.where(self.symbols.unsqueeze(-1) == NOTHING, 0.0, values)
        # Unlike index_add, deterministic on every device.
        added = torch.ops.aten.embedding_dense_backward(values, self._places(), replicas * vocabulary, -1, False)
        return added.view(replicas, vocabulary, -1)

    def _places(self) -> Int[Tensor, "replica row"]:
        """The row of each symbol in the matrices of all replicas, one below the other; the first where it is −1."""
        replicas, _, vocabulary = self._like.shape
        first = vocabulary * torch.arange(replicas, device=self._like.device)
        return self.symbols.long().clamp(min=0) + first[:, None]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in DESCRIPTIONS:
                return func(args[0]._like)
            if func in PRODUCTS and not kwargs and [isinstance(one, OneHot) for one in args] == [True, False]:
                vectors, weights = args
                if weights.ndim == 3 and len(weights) == len(vectors.symbols):
                    return vectors.times(weights)
            if func in SUMS and not kwargs and [isinstance(one, OneHot) for one in args] == [False, True, False]:
                added, vectors, weights = args
                return added + vectors.times(weights)
            args = tree_map(_as_numbers, args)
            return func(*args, **{name: tree_map(_as_numbers, value) for name, value in (kwargs or {}).items()})


def _as_numbers(value: Any) -> Any:
    return value.dense() if isinstance(value, OneHot) else value


DESCRIPTIONS = tuple(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim"))
"""What is known of the dense vectors without making them."""

PRODUCTS = (torch.bmm, torch.matmul, Tensor.bmm, Tensor.matmul, Tensor.__matmul__)
SUMS = (torch.baddbmm, Tensor.baddbmm)


def vectors(
    inputs: Shaped[Tensor, "replica row features"], vocabulary: int | None, parameters: Mapping[str, Tensor]
) -> Float[Tensor, "replica row vectors"]:
    """What a layer reads, as vectors: symbols (replica, row, 1) as one-hot vectors, and numbers unchanged.

    vocabulary: how many symbols there are; None where the inputs are numbers.
    parameters: of the layer, whose type of numbers the vectors have.
    """
    if vocabulary is None:
        return inputs
    return OneHot.of(inputs.squeeze(-1), vocabulary, next(iter(parameters.values())).dtype)


def dense_vectors(
    inputs: Shaped[Tensor, "replica row features"], vocabulary: int | None, parameters: Mapping[str, Tensor]
) -> Float[Tensor, "replica row vectors"]:
    """As `vectors`, one-hot vectors as numbers too."""
    return _as_numbers(vectors(inputs, vocabulary, parameters))


def transposed_product(
    inputs: Float[Tensor, "replica row features"], values: Float[Tensor, "replica row out"]
) -> Float[Tensor, "replica features out"]:
    """xᵀ v: the gradient of W where v is that of x W."""
    return inputs.transposed_times(values) if isinstance(inputs, OneHot) else inputs.transpose(1, 2) @ values
