"""Which ways to run a model are held against a run as it is: pruned, switched, folded, uniform, longer.

Axes: L layers, P virtual tokens of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import bad_value
from apt_core.gate_tally import GateTally
from apt_core.model import AptModel
from apt_core.passes import Batch, Passes
from apt_core.removal import removal_order
from apt_core.variants import ModelVariant, folded, pruned, untrained, without_prefixes

TOTALS = (0.75, 0.5, 0.25)
"""of the run's virtual tokens, that pruned variants keep where no totals are given"""
SKIPPED = (0.25, 0.5, 0.75)
"""of all gates on these examples, that switched variants leave out where no thresholds are given"""
LONGER = (2, 4)
"""times as many virtual tokens as a layer of the run has on average, to see what one costs"""
BINS = 1000
"""of the histogram of gates: thresholds have three digits"""


class Gates(NamedTuple):
    """Token gates of the full model on the examples."""

    means: list[np.ndarray]
    """[L][P of the layer] over inputs, or over their positions; ones where a layer has none"""
    histogram: np.ndarray
    """[BINS] of all gates in (0, 1); empty bins where there are none"""


def look_at_gates(model: AptModel, passes: Passes, batches: list[Batch]) -> Gates:
    """One pass over the examples, without their labels: what pruning and thresholds go by."""
    lengths = [0 if prefix is None else prefix.num_virtual_tokens for prefix in model.prefixes]
    sums, rows = [np.zeros(length) for length in lengths], np.zeros(len(lengths))
    histogram = np.zeros(BINS)
    with torch.inference_mode(), GateTally(model, training=False) as tally:
        for batch in batches:
            passes.run(batch)
            for layer, gate in enumerate(tally.take()):
                if gate is not None:
                    sums[layer] += gate.double().sum(dim=0).cpu().numpy()
                    rows[layer] += len(gate)
                    histogram += torch.histc(gate.float().cpu(), BINS, 0, 1).numpy()
    return Gates([total / max(count, 1) for total, count in zip(sums, rows, strict=True)], histogram)


def choose_totals(given: Sequence[int] | None, total: int) -> list[int]:
    """What pruned variants keep, falling; None: the fractions ``TOTALS``.

    Raises:
        AptValueError: if one is not between 0 and ``total``, those of the run.
    """
    if given is None:
        return sorted({kept for fraction in TOTALS if 0 < (kept := round(fraction * total)) < total}, reverse=True)
    for kept in given:
        if not 0 < kept < total:
            raise bad_value("totals", kept, f"1 to {total - 1}, under the {total} virtual tokens of the run")
    return sorted(set(given), reverse=True)


def choose_thresholds(given: Sequence[float] | None, model: AptModel, gates: Gates) -> list[float]:
    """Where switched variants switch off, rising; None: the quantiles ``SKIPPED`` of the gates.

    Raises:
        AptValueError: if one is negative, or the model has no token gates.
    """
    for threshold in given or ():
        if not threshold >= 0:
            raise bad_value("thresholds", threshold, "token gates, from 0 (leave out nothing) to over 1 (everything)")
    if model.apt_config.token_gate == "none":
        if given:
            raise bad_value("thresholds", list(given), "a run with token gates; this one has none to compare with them")
        return []
    if given is not None:
        return sorted(set(given))
    if not gates.histogram.sum():  # a training that diverged
        return []
    reached = np.cumsum(gates.histogram) / gates.histogram.sum()
    return sorted({float(np.searchsorted(reached, fraction) + 1) / BINS for fraction in SKIPPED})


def make_variants(
    model: AptModel, gates: Gates, totals: Sequence[int], thresholds: Sequence[float]
) -> list[ModelVariant]:
    """The backbone, the run, and what is held against them."""
    full = ModelVariant("full run", "full", model.prefixes)
    scales = [
        1.0 if prefix is None or prefix.layer_scale is None else prefix.layer_scale.weight.detach().abs().item()
        for prefix in model.prefixes
    ]
    order = removal_order([scale * mean for scale, mean in zip(scales, gates.means, strict=True)])
    variants = [without_prefixes(model), full]
    config = model.apt_config
    if config.token_gate == "static" or (config.token_gate == "none" and config.layer_scale):
        variants.append(folded(model))
    variants += [pruned(model, order, kept) for kept in totals]
    variants += [
        ModelVariant(f"gates under {threshold:g} off", "switched", model.prefixes, threshold)
        for threshold in thresholds
    ]
    total, num_layers = sum(full.lengths), len(full.lengths)
    each, more = divmod(total, num_layers)
    equal = [each + (layer < more) for layer in range(num_layers)]
    if sorted(equal) != sorted(full.lengths):
        variants.append(untrained(model, equal, f"uniform, {total} in all", "uniform"))
    for factor in LONGER:
        length = min(factor * max(each, 1), MAX_TOKENS_PER_LAYER)
        variants.append(untrained(model, [length] * num_layers, f"{length} in every layer", "longer"))
    return variants
