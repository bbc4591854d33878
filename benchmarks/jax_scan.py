"""The same training step in JAX: jit(vmap(grad(scan))), with a zero perturbation added to every state at every step.

The gradient of the perturbations is the total derivative dL/ds_t, as ours; its log10 norms are computed too. The
whole step (forward, readout, cross-entropy, backward, clipping by norm, SGD) is one compiled program.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.tasks.temporal_order import TemporalOrder

THRESHOLD, RATE = 1.0, 0.01


def there() -> bool:
    """Whether the extra `bench` is installed."""
    return importlib.util.find_spec("jax") is not None


def jax_scan(cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    """jit(vmap(grad(scan))) over the population, log10 norms of every state at every step computed."""
    import jax
    import jax.numpy as jnp

    width, states = cell.width, len(cell.states)
    gates = cell.parameters(6, 4)["W_hh"].shape[1]

    def advance(parameters: Any, before: Any, this: Any) -> Any:
        x, nudges = this
        own = before[0] @ parameters["W_hh"]
        given = x @ parameters["W_xh"] + parameters["b_h"]
        if isinstance(cell, Elman):
            after = (jnp.tanh(given + own) + nudges[0],)
        elif isinstance(cell, GRU):
            read, keep = jnp.split(jax.nn.sigmoid(given[:, : 2 * width] + own[:, : 2 * width]), 2, axis=1)
            candidate = jnp.tanh(given[:, 2 * width :] + read * (own[:, 2 * width :] + parameters["b_hn"]))
            after = (candidate + keep * (before[0] - candidate) + nudges[0],)
        else:
            a = given + own
            forget, store, show = jnp.split(jax.nn.sigmoid(a[:, : 3 * width]), 3, axis=1)
            c = forget * before[1] + store * jnp.tanh(a[:, 3 * width :]) + nudges[1]
            after = (show * jnp.tanh(c) + nudges[0], c)
        return after, None

    def loss(parameters: Any, nudges: Any, x: Any, target: Any) -> Any:
        nothing = tuple(jnp.zeros((batch, width)) for _ in range(states))
        last, _ = jax.lax.scan(lambda before, this: advance(parameters, before, this), nothing, (x, nudges))
        logits = last[0] @ parameters["W_ho"] + parameters["b_o"]
        return (jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, target[:, None], 1)[:, 0]).mean()

    def step(parameters: Any, x: Any, target: Any) -> Any:
        nudges = tuple(jnp.zeros((length, batch, width)) for _ in range(states))
        gradients, through_time = jax.grad(loss, (0, 1))(parameters, nudges, x, target)
        norm = jnp.sqrt(sum(jnp.square(one).sum() for one in gradients.values()))
        factor = RATE * jnp.minimum(1.0, THRESHOLD / norm)
        new = {name: value - factor * gradients[name] for name, value in parameters.items()}
        return new, tuple(jnp.log10(jnp.square(one).sum(-1)) / 2 for one in through_time)

    shapes = {"W_xh": (6, gates), "W_hh": (width, gates), "b_h": (gates,), "W_ho": (width, 4), "b_o": (4,)}
    shapes |= {"b_hn": (width,)} if isinstance(cell, GRU) else {}
    keys = jax.random.split(jax.random.PRNGKey(0), len(shapes))
    bound = width**-0.5
    parameters = {
        name: jax.random.uniform(key, (replicas, *shape), minval=-bound, maxval=bound)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    drawn = TemporalOrder(length=length).sample(batch, torch.Generator().manual_seed(0))
    x, target = jnp.asarray(drawn.inputs.numpy()), jnp.asarray(drawn.targets[-1].numpy())
    compiled = jax.jit(jax.vmap(step, in_axes=(0, None, None)))
    held = [parameters]

    def once() -> Any:
        held[0], norms = compiled(held[0], x, target)
        return jax.block_until_ready((held[0], norms))

    return once
