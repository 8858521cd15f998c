"""Statistics of gate arrays; pure numpy.

Axes: S recorded steps, L layers, P virtual tokens (NaN where a layer has fewer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from apt_core.errors import bad_value

Quantity = Literal["weight", "token gate", "layer scale"]
QUANTITIES: dict[Quantity, str] = {
    "weight": "mean token gate x |layer scale|",
    "token gate": "mean token gate",
    "layer scale": "|layer scale|",
}


def quantity(name: Quantity, token_gate: np.ndarray, layer_scale: np.ndarray) -> np.ndarray:
    """What a heatmap shows.

    Args:
        name: ``weight`` is |lambda_i| alpha_i, the size of what eq. 4 multiplies a prefix with.
        token_gate: [..., L, P] in (0, 1).
        layer_scale: [..., L].

    Returns:
        [..., L, P]; NaN where a layer has no such virtual token.
    """
    scale = np.abs(layer_scale)[..., None]
    if name == "token gate":
        return token_gate
    if name == "layer scale":
        return np.where(np.isnan(token_gate), np.nan, scale)
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run's numbers stay infinite or NaN
        return token_gate * scale


def batch_spread(name: Quantity, token_gate_std: np.ndarray, layer_scale: np.ndarray) -> np.ndarray:
    """Standard deviation of a quantity over the batch [..., L, P]; 0 for a layer scale, which no input changes."""
    if name == "layer scale":
        return np.where(np.isnan(token_gate_std), np.nan, 0.0)
    return quantity(name, token_gate_std, layer_scale)


def not_finite(values: np.ndarray, prefix_lengths: Sequence[int]) -> int:
    """How many virtual tokens have a NaN or infinite value in ``values`` [L, P]; padding does not count."""
    return int((present_tokens(prefix_lengths, values.shape[1]) & ~np.isfinite(values)).sum())


class LayerProfile(NamedTuple):
    """Each layer as a whole; NaN for a layer without virtual tokens."""

    mean: np.ndarray  # [L] over the layer's virtual tokens
    over_tokens: np.ndarray  # [L] standard deviation over the layer's virtual tokens
    over_batch: np.ndarray  # [L] standard deviation over the batch, averaged over the virtual tokens


def layer_profile(values: np.ndarray, spread: np.ndarray) -> LayerProfile:
    """Averages over virtual tokens; what is infinite is left out like what is absent.

    Args:
        values: [L, P].
        spread: standard deviation over the batch [L, P], on the same scale as ``values``.
    """
    values, spread = finite(values), finite(spread)
    mean = _mean(values)
    variance = _mean((values - mean[:, None]) ** 2)
    return LayerProfile(mean, np.sqrt(variance), _mean(spread))


def present_tokens(prefix_lengths: Sequence[int], num_virtual_tokens: int) -> np.ndarray:
    """Which cells of [L, P] are virtual tokens, and which only padding up to the longest prefix: bool [L, P]."""
    lengths = np.array(prefix_lengths, dtype=np.int64).reshape(-1, 1)
    return np.arange(num_virtual_tokens) < lengths


def finite(values: np.ndarray) -> np.ndarray:
    """The same values with NaN in place of the infinite ones, so that one diverged gate does not hide the rest."""
    return np.where(np.isfinite(values), values, np.nan)


def largest(values: np.ndarray) -> float | None:
    """The largest finite value; None where there is none."""
    found = float(values.max(initial=-np.inf, where=np.isfinite(values)))
    return found if np.isfinite(found) else None


def smallest_positive(values: np.ndarray) -> float | None:
    """The smallest finite value above 0, where a logarithmic colour scale can start; None where there is none."""
    found = float(values.min(initial=np.inf, where=values > 0))
    return found if np.isfinite(found) else None


def heaviest_first(values: np.ndarray) -> np.ndarray:
    """Each layer's virtual tokens by falling value: indices [L, P]; absent and NaN ones last, ties in their order."""
    return np.argsort(np.where(np.isnan(values), np.inf, -values), axis=1, kind="stable")


def difference(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``values - reference`` [L, P].

    Raises:
        AptValueError: if the shapes differ: then a cell of one has no counterpart in the other.
    """
    if values.shape != reference.shape:
        raise bad_value("shape", f"[L, P] = {list(reference.shape)}", f"{list(values.shape)}, that of this run")
    return values - reference


def layer_mass(weights: np.ndarray) -> np.ndarray:
    """Sum of the weights of a layer's virtual tokens: [L, P] to [L], 0 for a layer without any."""
    return np.nansum(weights, axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN left out; NaN where there is nothing else."""
    count = (~np.isnan(values)).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan, total.dtype), where=count > 0)


def heaviest_tokens(values: np.ndarray, at_most: int = 6) -> list[tuple[int, int]]:
    """(layer, token) of the largest value of each layer, for the ``at_most`` layers where it is largest.

    Args:
        values: [L, P], NaN where a layer has no such virtual token.
    """
    filled = np.nan_to_num(values, nan=-np.inf)
    if filled.shape[1] == 0:
        return []
    best = filled.argmax(axis=1)
    layers = [layer for layer in np.argsort(-filled.max(axis=1), kind="stable") if np.isfinite(filled[layer]).any()]
    return sorted((int(layer), int(best[layer])) for layer in layers[:at_most])
