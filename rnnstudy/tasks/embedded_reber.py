"""Embedded Reber grammar: predict the next symbol; the second symbol determines the last but one."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy.tasks.task import Batch, Chance, Criterion, Task, any_supervised, at_steps, cross_entropy, inside, one_hot

SYMBOLS = "BTPSXVE"
B, T, P, S, X, V, E = range(len(SYMBOLS))

EDGES = torch.tensor([[[T, 1], [P, 2]], [[S, 1], [X, 3]], [[T, 2], [V, 4]], [[X, 2], [S, 5]], [[P, 3], [V, 5]]])
"""(node, branch, (symbol, next node)): the Reber grammar between its B and its E; both branches are equally likely."""

END = 5
AROUND = 6
"""Number of symbols around the inner path: B, the outer symbol, B before it; E, the outer symbol, E after it."""


class EmbeddedReber(Task):
    """Strings B o B … E o E with o = T or P around a Reber string; at every step, predict which symbols may follow.

    The inner path begins at node 0 and takes one of two branches with equal chance at each node: 0 –T→ 1, –P→ 2; 1 –S→
    1, –X→ 3; 2 –T→ 2, –V→ 4; 3 –X→ 2, –S→ end; 4 –P→ 3, –V→ end. Seven one-hot inputs (B, T, P, S, X, V, E), seven
    outputs, softmax and cross-entropy (nats) with the symbol that does follow, averaged over the l − 1 steps of a
    string of l symbols. Only the outer symbol must be remembered for long: l − 3 steps.

    `lengths` decides which strings are drawn, with T = `length`; the shortest strings have 9 symbols. `up to`: at most
    T symbols, the published distribution without its tail. `exactly`: T symbols, the same distribution given the
    length, so that the lag is known.

    Error: the share of strings with any step wrong; a step is right when the symbols that the grammar allows next have
    the largest outputs. `outer_error`: the share of strings in which, of T and P, the wrong one has the larger output
    at the last but one symbol (chance 1/2). Published: all of 256 training and 256 test strings right (the networks had
    logistic outputs and squared error); our criterion is an error below 1 in 256 fresh strings.

    Targets have eight columns: the next symbol, and for each of the seven symbols whether the grammar allows it.

    >>> import torch
    >>> drawn = EmbeddedReber(length=20).sample(3, torch.Generator().manual_seed(1))
    >>> for row in range(3):
    ...     steps = drawn.lengths[row]
    ...     said = "".join("BTPSXVE"[s] for s in drawn.inputs[:steps, row].argmax(-1))
    ...     print(said, "->", "BTPSXVE"[drawn.targets[steps - 1, row, 0]])
    BPBTSSSXSEP -> E
    BPBPVPSEP -> E
    BTBPVVET -> E
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 1 (Cleeremans et al. 1989; Smith & Zipser 1989)"
    loss_unit: ClassVar[str] = "nats"
    features: ClassVar[int] = len(SYMBOLS)
    outputs: ClassVar[int] = len(SYMBOLS)
    criterion: ClassVar[Criterion] = Criterion(
        1 / 256, "any step wrong on less than 1 in 256 strings", "share of strings with any step wrong"
    )

    lengths: Literal["up to", "exactly"] = "up to"

    def check(self) -> None:
        self.require_length(9, "the shortest strings of the grammar")

    @property
    def steps(self) -> int:
        """T − 1: the last symbol is predicted and never read."""
        return self.length - 1

    @property
    def _inner_paths(self) -> "_Distribution":
        return _distribution(self.length - AROUND, self.lengths == "exactly")

    @property
    def chance(self) -> Chance:
        """Answer with the exact frequencies of the symbols at each step, computed from the distribution over nodes."""
        return self._inner_paths.chance

    @property
    def least_loss(self) -> float:
        """Two equally likely symbols at l − 5 of l − 1 steps, one at the others: E[(l − 5)/(l − 1)]·ln 2."""
        return self._inner_paths.least_loss

    def perfect_outputs(self, targets: Tensor) -> Tensor:
        return 50 * targets[..., 1:].to(torch.get_default_dtype())

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        steps, sequence = self.steps, torch.arange(batch)
        second_branch = self._inner_paths.second_branch
        outer = 1 + torch.randint(2, (batch,), generator=generator)
        symbols = torch.full((self.length, batch), B)
        allowed = torch.zeros(self.length, batch, len(SYMBOLS), dtype=torch.long)
        allowed[0, :, B] = allowed[1, :, T] = allowed[1, :, P] = allowed[2, :, B] = 1
        symbols[1] = outer
        node, inner = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
        for index, chances in enumerate(second_branch):
            walking, at = node < END, node.clamp(max=END - 1)
            branch = (torch.rand(batch, generator=generator, dtype=torch.float64) < chances[at]).long()
            edges = EDGES[at]
            symbols[3 + index] = edges[sequence, branch, 0]
            allowed[3 + index].scatter_(1, edges[..., 0], 1)
            node = torch.where(walking, edges[sequence, branch, 1], node)
            inner += walking
        for offset, symbol in enumerate((torch.full_like(outer, E), outer, torch.full_like(outer, E))):
            position = 3 + inner + offset
            symbols[position, sequence] = symbol
            allowed[position, sequence] = torch.nn.functional.one_hot(symbol, len(SYMBOLS))
        lengths = inner + AROUND - 1
        valid = inside(steps, lengths)
        targets = torch.cat([symbols.unsqueeze(-1), allowed], dim=-1)[1:]
        return Batch(
            inputs=one_hot(symbols[:-1], len(SYMBOLS)) * valid.unsqueeze(-1),
            targets=targets * valid.unsqueeze(-1),
            mask=valid,
            lengths=lengths,
            informative=at_steps(steps, torch.ones_like(outer)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets[..., 0])

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        allowed = targets[..., 1:].bool()
        lowest_allowed = outputs.masked_fill(~allowed, torch.inf).amin(-1)
        highest_other = outputs.masked_fill(allowed, -torch.inf).amax(-1)
        wrong = (lowest_allowed <= highest_other).to(outputs.dtype)
        remaining = mask.flip(0).cumsum(0).flip(0)
        prefers_p = outputs[..., P] > outputs[..., T]
        wrong_outer = (prefers_p != (targets[..., 0] == P)).to(outputs.dtype)
        return {
            "error": any_supervised(wrong, mask),
            "outer_error": any_supervised(wrong_outer, mask & (remaining == 2)),
        }


@dataclass(frozen=True)
class _Distribution:
    """The distribution of inner paths of at most (or exactly) a given number of symbols.

    Attributes:
        second_branch: the probability of the second branch, given that the path ends in time.
        chance: loss and error of the best predictor that sees no input.
        least_loss: the mean loss of a predictor that knows which symbols are allowed.
    """

    second_branch: Float[Tensor, "step node"]
    chance: Chance
    least_loss: float


@functools.lru_cache(maxsize=16)
def _distribution(longest: int, exactly: bool) -> _Distribution:
    second = _second_branch(longest, exactly)
    branches = torch.stack([1 - second, second], dim=-1)
    weight = _mean_weight(branches)
    flows, ended = _walk(branches)
    weighted = torch.zeros(longest + AROUND - 1, len(SYMBOLS), dtype=torch.float64)
    weighted[0, [T, P]] = weight[0, 0] / 2
    weighted[1, B] = weight[0, 0]
    for index, flow in enumerate(flows):
        after = flow * weight[index + 1, EDGES[..., 1]]
        weighted[2 + index].index_add_(0, EDGES[..., 0].flatten(), after.flatten())
    for inner, share in enumerate(ended):
        each = share * weight[inner, END]
        weighted[[2 + inner, 4 + inner], E] += each
        weighted[3 + inner, [T, P]] += each / 2
    frequencies = weighted / weighted.sum(1, keepdim=True).clamp(min=1e-300)
    loss = -torch.xlogy(weighted, frequencies).sum().item()
    steps = torch.arange(longest + 1) + AROUND - 1
    least = (ended * (steps - 4) / steps).sum().item() * log(2)
    return _Distribution(second, Chance(loss=loss, error=1 - _share_right(branches, frequencies)), least)


def _second_branch(longest: int, exactly: bool) -> Float[Tensor, "step node"]:
    """The probability of the second branch at each node after 0, 1, … symbols, given that the path ends in time."""
    ends = torch.zeros(END + 1, dtype=torch.float64)
    ends[END] = 1.0
    backwards = []
    for _ in range(longest):
        by_branch = ends[EDGES[..., 1]]
        backwards.append((by_branch[:, 1] / by_branch.sum(1).clamp(min=1e-300)).clamp(0, 1))
        ends = torch.cat([by_branch.sum(1) / 2, torch.tensor([0.0 if exactly else 1.0], dtype=torch.float64)])
        if exactly:
            ends = ends / ends.max()  # only ratios within a step matter; the probability of a long path underflows
    return torch.stack(backwards[::-1])


def _walk(
    branches: Float[Tensor, "step node branch"],
) -> tuple[list[Float[Tensor, "node branch"]], Float[Tensor, " inner"]]:
    """The share of paths that take each branch at each step, and the share that end after 0, 1, … symbols."""
    reached = torch.zeros(END + 1, dtype=torch.float64)
    reached[0] = 1.0
    flows, ended = [], [reached[END]]
    for chances in branches:
        flows.append(reached[:END, None] * chances)
        reached = torch.zeros_like(reached).index_add(0, EDGES[..., 1].flatten(), flows[-1].flatten())
        ended.append(reached[END])
    return flows, torch.stack(ended)


def _mean_weight(branches: Float[Tensor, "step node branch"]) -> Float[Tensor, "inner node_or_end"]:
    """E[1/(supervised steps)] over the paths that reach each node after 0, 1, … inner symbols."""
    at_end = 1 / (torch.arange(len(branches) + 1, dtype=torch.float64) + AROUND - 1)
    weight = torch.zeros(len(branches) + 1, END + 1, dtype=torch.float64)
    weight[:, END] = at_end
    for index in reversed(range(len(branches))):
        weight[index, :END] = (branches[index] * weight[index + 1, EDGES[..., 1]]).sum(1)
    return weight


def _share_right(branches: Float[Tensor, "step node branch"], outputs: Float[Tensor, "time symbol"]) -> float:
    """The share of strings on which `outputs`, the same for all strings, are right at every step."""

    def right(step: int, *allowed: int) -> float:
        others = [symbol for symbol in range(len(SYMBOLS)) if symbol not in allowed]
        return float(outputs[step, list(allowed)].min() > outputs[step, others].max())

    branches = branches.clone()
    for index in range(len(branches)):
        for node in range(END):
            branches[index, node] *= right(2 + index, *EDGES[node, :, 0].tolist())
    _, ended = _walk(branches)
    share = sum(
        float(ended[inner])
        * right(2 + inner, E)
        * (right(3 + inner, T) + right(3 + inner, P))
        / 2
        * right(4 + inner, E)
        for inner in range(len(ended))
    )
    return share * right(0, T, P) * right(1, B)
