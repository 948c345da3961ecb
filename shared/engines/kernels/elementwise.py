"""Norms, residual sums and activations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.compiling import fused, plain, regrouped
from shared.engines.kernels.numbers import exponential, f32

RELU, GELU, GELU_TANH, SILU = range(4)
"""Activations."""


class Style(NamedTuple):
    """How transformers differ, beside their weights."""

    before: bool
    """Norms stand before each part, which adds to what is not normed; or else after it."""
    rms: bool
    """Norms are RMS norms, or else layer norms."""
    activation: int
    gated: bool
    """Half of what goes into the activation is multiplied with what comes out (Shazeer 2020)."""
    epsilon: float


@plain
def incoming(x: np.ndarray, weights: np.ndarray, style: Style, out: np.ndarray) -> np.ndarray:
    """The input of a part: `x`, or where norms stand before the parts, `out`, into which `x` is normed."""
    if style.before:
        norm(x, weights, style, out)
        return out
    return x


@plain
def outgoing(x: np.ndarray, more: np.ndarray, weights: np.ndarray, style: Style) -> None:
    """Adds a part's output, which may be wider, in place."""
    add(x, more)
    if not style.before:
        norm(x, weights, style, x)


@plain
def norm(x: np.ndarray, weights: np.ndarray, style: Style, out: np.ndarray) -> None:
    """`weights` (2, width) are factors, and what a layer norm adds."""
    if style.rms:
        rms_norm(x, weights[0], style.epsilon, out)
    else:
        layer_norm(x, weights, style.epsilon, out)


@plain
def activate(up: np.ndarray, style: Style, out: np.ndarray) -> None:
    """float32 (rows, inner or more; twice that where there is a gate, which comes first) to (rows, inner)."""
    if style.activation == GELU:
        gelu(up, out)
    elif style.activation == GELU_TANH:
        gelu_tanh(up, out)
    elif style.activation == SILU:
        silu(up, out)
    else:
        relu(up, out)
    if style.gated:
        inner = out.shape[1]
        for row in range(out.shape[0]):
            others, into = up[row, inner : 2 * inner], out[row]
            for i in range(inner):
                into[i] *= others[i]


@regrouped
def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float, out: np.ndarray) -> None:
    """Zhang and Sennrich 2019: float32 (rows, width)."""
    for row in range(x.shape[0]):
        total = f32(0)
        for i in range(x.shape[1]):
            total += x[row, i] * x[row, i]
        scale = f32(1) / np.sqrt(total / f32(x.shape[1]) + f32(epsilon))
        for i in range(x.shape[1]):
            out[row, i] = x[row, i] * scale * weight[i]


@regrouped
def layer_norm(x: np.ndarray, weights: np.ndarray, epsilon: float, out: np.ndarray) -> None:
    """Ba et al. 2016: float32 (rows, width); `weights` (2, width) are factors, and what is added."""
    for row in range(x.shape[0]):
        total = f32(0)
        for i in range(x.shape[1]):
            total += x[row, i]
        mean = total / f32(x.shape[1])
        spread = f32(0)
        for i in range(x.shape[1]):
            spread += (x[row, i] - mean) * (x[row, i] - mean)
        scale = f32(1) / np.sqrt(spread / f32(x.shape[1]) + f32(epsilon))
        for i in range(x.shape[1]):
            out[row, i] = (x[row, i] - mean) * scale * weights[0, i] + weights[1, i]


@plain
def add(x: np.ndarray, more: np.ndarray) -> None:
    """`more` may be wider, as what comes out of a product is."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[row, i] += more[row, i]


@fused
def swiglu(gate_up: np.ndarray, out: np.ndarray) -> None:
    """Shazeer 2020: float32 (rows, 2 * inner or a little more) to (rows, inner)."""
    inner = out.shape[1]
    for row in range(out.shape[0]):
        for i in range(inner):
            gate = gate_up[row, i]
            out[row, i] = gate_up[row, inner + i] * (gate / (f32(1) + exponential(-gate)))


@fused
def gelu_tanh(up: np.ndarray, out: np.ndarray) -> None:
    """The approximation of GELU with tanh (Hendrycks and Gimpel 2016): float32 (rows, inner or more) to (rows, inner).

    (1 + tanh(u)) / 2 is 1 / (1 + e ** -2u), which loses no digits where tanh is near -1.
    """
    for row in range(out.shape[0]):
        for i in range(out.shape[1]):
            x = up[row, i]
            twice = f32(1.5957691216057308) * (x + f32(0.044715) * x * x * x)
            out[row, i] = x / (f32(1) + exponential(-twice))


@fused
def gelu(up: np.ndarray, out: np.ndarray) -> None:
    """x times the normal distribution's share below x (Hendrycks and Gimpel 2016): shapes as `gelu_tanh`.

    The error function is formula 7.1.26 of Abramowitz and Stegun 1964, to 1.5e-7.
    """
    for row in range(out.shape[0]):
        for i in range(out.shape[1]):
            x = up[row, i]
            z = abs(x) * f32(0.7071067811865476)
            t = f32(1) / (f32(1) + f32(0.3275911) * z)
            p = f32(1.061405429) * t - f32(1.453152027)
            p = p * t + f32(1.421413741)
            p = p * t - f32(0.284496736)
            p = p * t + f32(0.254829592)
            above = f32(0.5) * p * t * exponential(-z * z)  # the share beyond |x|
            out[row, i] = x * (f32(1) - above) if x >= f32(0) else x * above


@plain
def relu(up: np.ndarray, out: np.ndarray) -> None:
    for row in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[row, i] = max(up[row, i], f32(0))


@fused
def silu(up: np.ndarray, out: np.ndarray) -> None:
    """x times the sigmoid of x: shapes as `gelu_tanh`."""
    for row in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[row, i] = up[row, i] / (f32(1) + exponential(-up[row, i]))
