"""The half-life of a gradient through time: in how many steps back it halves."""

import numpy as np

__all__ = ["half_life_of_bias", "half_life_of_rate"]


def half_life_of_bias(bias: np.ndarray, loop: float = 0.0) -> np.ndarray:
    """log 2/(−log λ) in steps, with λ = σ(b) + `loop`: infinite where λ ≥ 1.

    With `loop` 0, the half-life of a cell state whose forget gate is σ(b) at every step. A loop adds what comes back to
    the cell through h: near c = h = 0, ∂c_t/∂c_{t−1} is σ(b) I + i o W_hh^C̃, so that λ = σ(b) + i o ρ with ρ the
    spectral radius of that block, where its outermost eigenvalue is real.
    """
    factor = np.exp(-np.logaddexp(0, -np.asarray(bias, dtype=np.float64))) + loop
    falling = factor < 1
    return np.where(falling, np.log(2) / -np.log(np.where(falling, factor, 0.5)), np.inf)


def half_life_of_rate(rates: np.ndarray | float) -> np.ndarray:
    """log10 2 over −rate, in steps; infinite where the rate is not below 0."""
    rate = np.asarray(rates, dtype=np.float64)
    return np.where(rate < 0, np.log10(2) / -np.where(rate < 0, rate, -1.0), np.inf)
