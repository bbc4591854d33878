"""JAX as a peer: jit(vmap(grad(scan))), a perturbation of zeros at every step giving dL/dh_t, products in float32."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# JAX otherwise takes three quarters of the device's memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp

FEATURES, CLASSES, BATCH = 6, 4, 20


def step_of(cell: str) -> Callable[..., Any]:
    """One step: parameters and state to the new state; the perturbation is added where h is computed."""

    def elman(p: Any, state: Any, x: Any, zero: Any) -> Any:
        return (jnp.tanh(x @ p["W_xh"] + state[0] @ p["W_hh"] + p["b_h"]) + zero,)

    def lstm(p: Any, state: Any, x: Any, zero: Any) -> Any:
        f, i, o, candidate = jnp.split(x @ p["W_xh"] + state[0] @ p["W_hh"] + p["b_h"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(candidate)
        return (jax.nn.sigmoid(o) * jnp.tanh(c) + zero, c)

    return elman if cell == "Elman" else lstm


def population_step(cell: str, length: int, width: int, replicas: int) -> Callable[[], Any]:
    gates, step = {"Elman": 1, "LSTM": 4}[cell], step_of(cell)
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (length, BATCH, FEATURES))
    targets = jax.random.randint(keys[1], (BATCH,), 0, CLASSES)
    parameters = {
        "W_xh": 0.1 * jax.random.normal(keys[2], (replicas, FEATURES, gates * width)),
        "W_hh": 0.1 * jax.random.normal(keys[3], (replicas, width, gates * width)),
        "b_h": jnp.zeros((replicas, gates * width)),
        "W_ho": jnp.zeros((replicas, width, CLASSES)),
    }
    zeros = jnp.zeros((length, BATCH, width))
    start = (jnp.zeros((BATCH, width)),) * (1 if cell == "Elman" else 2)

    def loss(p: Any, perturbation: Any) -> Any:
        state, _ = jax.lax.scan(lambda s, given: (step(p, s, *given), None), start, (inputs, perturbation))
        logits = jax.nn.log_softmax(state[0] @ p["W_ho"])
        return -jnp.take_along_axis(logits, targets[:, None], 1).mean()

    def one(p: Any) -> Any:
        gradients, at_states = jax.grad(loss, argnums=(0, 1))(p, zeros)
        norm = jnp.sqrt(sum(jnp.sum(value**2) for value in gradients.values()))
        factor = 0.01 * jnp.minimum(1.0, 1.0 / norm)
        updated = {name: value - factor * gradients[name] for name, value in p.items()}
        return updated, jnp.log10(jnp.linalg.norm(at_states, axis=-1))

    compiled = jax.jit(jax.vmap(one))
    return lambda: jax.block_until_ready(compiled(parameters))


def measured_jax(take: Callable[[str, Any], None], tiny: bool) -> None:
    """Hand `take` the milliseconds of a whole population's step."""
    jax.config.update("jax_default_matmul_precision", "highest")
    length, width = (10, 4) if tiny else (200, 50)
    take("jax", {"version": jax.__version__, "devices": [str(one) for one in jax.devices()]})
    for replicas in (2,) if tiny else (1, 132, 512, 2048):
        for cell in ("Elman", "LSTM"):
            name = f"{cell} K={replicas} B={BATCH} H={width} T={length}"
            try:
                step = population_step(cell, length, width, replicas)
                began = time.perf_counter()
                step()
                first, times = time.perf_counter() - began, []
                for _ in range(2 if tiny else 11):
                    began = time.perf_counter()
                    step()
                    times.append(1e3 * (time.perf_counter() - began))
            # Too little memory is a result here.
            except Exception as error:
                take(name, f"{type(error).__name__}: {error}"[:300])
                continue
            spread = {"lowest": min(times), "highest": max(times), "first call": 1e3 * first}
            take(name, {"median": statistics.median(times), **spread})
