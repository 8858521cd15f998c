"""What a run's gates show, in sentences that each rest on numbers and on a definition that is given with them; pure.

Everything but the settling is said of the mean over the last ``SETTLED_FRACTION`` of the steps looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.gate_sample import GateSample
from analysis.gate_stats import layer_mass, quantity
from analysis.settling import MIN_STEPS, TOLERANCE, Settling, settling
from apt_core.settled import SATURATED, SETTLED_FRACTION, is_saturated, last_part

LOW_GATE = 0.3
"""a token gate under this lets less than three tenths of its virtual token through"""
STATIC_STD = 0.01
"""a median standard deviation over the batch below this: the gates hardly depend on the input"""
LAST = f"the mean over the last {SETTLED_FRACTION:.0%} of the steps looked at"


class Sentence(NamedTuple):
    """One statement and what it rests on."""

    text: str
    definition: str


class Settled(NamedTuple):
    """When the gates of a run settled."""

    tokens: Settling  # of the weights [L, P]
    layers: Settling  # of the gate mass [L]


def when_settled(sample: GateSample, weights: np.ndarray | None = None) -> Settled:
    """Settling of each weight and of each layer's gate mass; ``weights`` [S, L, P] if computed already."""
    weights = quantity("weight", sample.token_gate, sample.layer_scale) if weights is None else weights
    with np.errstate(invalid="ignore"):  # a NaN of a present token stays in the sum: the layer has not settled
        mass = np.where(sample.present, weights, 0.0).sum(axis=-1, dtype=np.float64)
    return Settled(
        settling(sample.steps, weights, sample.present), settling(sample.steps, mass, sample.present.any(axis=1))
    )


def read_gates(sample: GateSample, settled: Settled) -> list[Sentence]:
    """The reading, the most important first; one sentence that says why where there is nothing to read."""
    if not sample.present.any():
        return [Sentence("This run has no virtual tokens, so it has no gates.", "Every prefix length is 0.")]
    if not len(sample.steps):
        return [Sentence("No step has been recorded yet.", "The gate log is empty.")]
    last = last_part(len(sample.steps))
    with np.errstate(invalid="ignore", over="ignore"):
        weights = quantity("weight", sample.token_gate[-last:], sample.layer_scale[-last:])
        weights = weights.mean(axis=0, dtype=np.float64)
        gates = sample.token_gate[-last:].mean(axis=0, dtype=np.float64)
        scales = np.abs(sample.layer_scale[-last:]).mean(axis=0, dtype=np.float64)
    known = sample.present & np.isfinite(weights)
    sentences = _not_finite(sample, known)
    if known.any():
        weights = np.where(known, weights, np.nan)
        sentences += _mass(weights, known)
        sentences += _low_gates(gates[known])
        sentences += _saturated(sample, known)
        sentences += _scales(scales, known.any(axis=1))
        sentences += _settled(sample, settled)
        sentences += _input_dependence(sample.last_std[:, known])
    return sentences


def _not_finite(sample: GateSample, known: np.ndarray) -> list[Sentence]:
    lost = int((sample.present & ~known).sum())
    if not lost:
        return []
    layers = _listed(np.flatnonzero((sample.present & ~known).any(axis=1)) + 1)
    return [
        Sentence(
            f"{lost:,} of {int(sample.present.sum()):,} weights are NaN or infinite ({layers}): the training diverged "
            "there. What follows leaves them out.",
            f"A weight that is not finite in {LAST}.",
        )
    ]


def _mass(weights: np.ndarray, known: np.ndarray) -> list[Sentence]:
    mass = layer_mass(weights)
    total = mass.sum()
    if total <= 0:
        return [Sentence("All weights are 0: no prefix is let through.", f"Weights as {LAST}.")]
    sentences = []
    num_layers = len(mass)
    if num_layers > 1:
        middle = num_layers // 2
        lower, upper = mass[:middle].sum() / total, mass[middle:].sum() / total
        name, first, stop, share = (
            ("Upper", middle, num_layers, upper) if upper >= lower else ("Lower", 0, middle, lower)
        )
        tokens = known[first:stop].sum() / known.sum()
        sentences.append(
            Sentence(
                f"{name} {_span(first + 1, stop)} {'carries' if stop - first == 1 else 'carry'} {share:.0%} of the "
                f"gate mass, with {tokens:.0%} of the virtual tokens.",
                f"Gate mass: the sum of the weights, mean token gate x |layer scale|, {LAST}. Upper: the layers from "
                f"{middle + 1} on. It says how much of the prefix is let through, not what it is worth.",
            )
        )
    falling = np.sort(weights[known])[::-1]
    half = int(np.searchsorted(np.cumsum(falling) / falling.sum(), 0.5 - 1e-6) + 1)
    even = -(-len(falling) // 2)
    sentences.append(
        Sentence(
            f"The {half:,} heaviest of {len(falling):,} virtual tokens carry half of the gate mass; with equal weights "
            f"it would take {even:,}.",
            f"The smallest number of virtual tokens whose weights, {LAST}, sum to half of the whole.",
        )
        if len(falling) > 1
        else Sentence("There is one virtual token, so there is nothing to compare.", "One token in all layers.")
    )
    return sentences


def _low_gates(gates: np.ndarray) -> list[Sentence]:
    if (gates == 1).all():
        return [Sentence("Every token gate is exactly 1: this run was trained without them.", f"Gates as {LAST}.")]
    low = int((gates < LOW_GATE).sum())
    return [
        Sentence(
            f"{low:,} of {len(gates):,} token gates {'is' if low == 1 else 'are'} under {LOW_GATE}; all of them reach "
            f"from {gates.min():.2f} to {gates.max():.2f}.",
            f"Token gates, averaged over the batch, as {LAST}; without the layer scale. A low gate says that little "
            "of the token is let through, not that the model would be as good without it.",
        )
    ]


def _saturated(sample: GateSample, known: np.ndarray) -> list[Sentence]:
    gates = sample.token_gate[:, known]  # [S, tokens]
    extreme = is_saturated(gates)
    if (gates[-1] == 1).all() or not extreme[-1].any():
        return []
    since = len(extreme) - np.logical_and.accumulate(extreme[::-1]).sum(axis=0)[extreme[-1]]  # first row of the stay
    step = int(sample.steps[np.sort(since)[(len(since) - 1) // 2]])
    count = len(since)
    return [
        Sentence(
            f"{count:,} of {gates.shape[1]:,} token gates {'is' if count == 1 else 'are'} saturated, under {SATURATED} "
            f"or over {1 - SATURATED}{' ' if count == 1 else ', half of them '}since step {step:,}: hardly anything "
            "moves them any more. With a smaller --gate-lr fewer would be.",
            "Token gates, averaged over the batch, at the last step, and the step from which on each of them was so at "
            "every step looked at. A sigmoid's gradient is gate x (1 - gate): at 0.02, 8 % of what it is at 0.5.",
        )
    ]


def _scales(scales: np.ndarray, used: np.ndarray) -> list[Sentence]:
    values, layers = scales[used], np.flatnonzero(used) + 1
    if (values == 1).all():
        return [Sentence("Every layer scale is exactly 1: not trained, or not moved.", f"|Layer scale| as {LAST}.")]
    if len(values) < 2:
        return []
    low, high = int(values.argmin()), int(values.argmax())
    return [
        Sentence(
            f"Layer scales, without their sign, reach from {values[low]:.2f} (layer {layers[low]}) to "
            f"{values[high]:.2f} (layer {layers[high]}).",
            f"|Layer scale| as {LAST}. Keys and values are both multiplied by it.",
        )
    ]


def _settled(sample: GateSample, settled: Settled) -> list[Sentence]:
    definition = (
        f"Settled: from that step on always within {TOLERANCE:.0%} of the final value, which is {LAST}, and so "
        "throughout that last part. A layer: its gate mass. Token gates are means over a batch: one that jitters by "
        "more than the band from batch to batch does not settle."
    )
    if not settled.tokens.enough:
        text = f"{len(sample.steps)} recorded steps are too few to say whether the gates settled; it takes {MIN_STEPS}."
        return [Sentence(text, definition)]
    tokens, layers = settled.tokens, settled.layers
    count = f"{int(tokens.settled.sum()):,} of {int(tokens.exists.sum()):,} weights settled"
    if layers.unsettled.any():
        text = f"Not settled: {_listed(np.flatnonzero(layers.unsettled) + 1)}; {count}."
    else:
        last = int(np.nanargmax(layers.step))
        text = f"Every layer settled, the last one (layer {last + 1}) at step {int(layers.step[last]):,}; {count}."
    if tokens.between > 1:
        definition += f" Looked at every {tokens.between:,} steps or closer."
    return [Sentence(text, definition)]


def _input_dependence(spread: np.ndarray) -> list[Sentence]:
    spread = spread[np.isfinite(spread)]
    if not spread.size:
        return []
    median = float(np.median(spread))
    definition = (
        "The standard deviation of each token gate over the examples of a batch, at the last part of the steps (where "
        f"every position has a gate of its own, over positions, too); under {STATIC_STD} counts as little. It is 0 for "
        "static gates, and for batches of one example."
    )
    if median == 0:
        return [Sentence("The gates do not differ within a batch.", definition)]
    stated = f"median standard deviation over the batch {median:.2g}"
    if median < STATIC_STD:
        text = f"The gates differ little from input to input ({stated}): they act like static gates here."
    else:
        text = f"The gates depend on the input ({stated})."
    return [Sentence(text, definition)]


def _span(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def _listed(layers: np.ndarray) -> str:
    """``layers 2, 3, 7 to 9``."""
    runs: list[list[int]] = []
    for layer in map(int, layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    return f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(parts)}"
