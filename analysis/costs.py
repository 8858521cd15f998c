"""What virtual tokens cost: parameters, bytes and multiply-adds counted from a run's shapes, milliseconds as measured.

Counts are those of the real tensors. With H key/value heads, h query heads, head sizes k (keys) and v (values) and
hidden size d, one virtual token of a layer has

    parameters      H (k + v), and for its gate d (hidden; d + 1 where gates start elsewhere than at 1/2) or 1 (static)
    adapter bytes   4 for each of these: what is trained is float32
    KV-cache bytes  H (k + v) times the bytes of the backbone's type, for each sequence
    multiply-adds   h (k + v), scores and values, for every query position; for a hidden gate also d, its linear map,
                    and H (k + v), its product with keys and values, once per sequence. Where that gate is one per
                    position, d, and its product with score and weight in each head, 2 h, at every query position

Static gates and scales multiply once per pass, or never once they are folded: not counted. A layer's first virtual
token brings a layer scale, and a projection while one trains. Axes: L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from apt_core.config import MAX_TOKENS_PER_LAYER, AptConfig
from apt_core.errors import bad_value
from apt_core.inference_format import Inference
from apt_core.run_format import RunInfo

TRAINED_BYTES = 4
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""of one number of the backbone's type"""
OLDER_RUN = "an older run, which does not say the shapes of its layers; 'python -m apt_core bench-inference' adds them"
NOT_MEASURED = "not measured; 'python -m apt_core bench-inference' does it"
MOST_MILLISECONDS = 1e15
"""measured times are read up to this, either side of 0, so that their sums stay finite"""
IN_THE_NOISE = "measured, but what a virtual token adds is within the noise of the times"


class TokenCosts(NamedTuple):
    """What one more virtual token of each layer costs; all of them add up linearly. None: not known."""

    parameters: np.ndarray | None  # [L] trained
    adapter_bytes: np.ndarray | None  # [L]
    kv_cache_bytes: np.ndarray | None  # [L] per sequence
    multiply_adds: np.ndarray | None  # [L] per query position
    milliseconds: np.ndarray | None  # [L] added to one forward pass, as measured
    sequence_multiply_adds: np.ndarray | None = None  # [L] once per sequence, beside those per query position
    reasons: dict[str, str] = {}  # noqa: RUF012
    """field that is None -> why"""


class Cost(NamedTuple):
    """What a model with certain prefix lengths costs. None: not known."""

    prefix_lengths: tuple[int, ...]
    parameters: int | None
    """trained: prefix, gates, scales and head, as ``AptModel.count_parameters`` counts them in training"""
    adapter_bytes: int | None
    """of the tensors in ``adapter_model.safetensors``"""
    kv_cache_bytes: int | None
    """added per sequence: keys and values that attention sees beside the text's own"""
    multiply_adds: int | None
    """added per query position, over all layers"""
    sequence_multiply_adds: int | None
    """added once per sequence, over all layers"""
    milliseconds: float | None
    """added to one forward pass of the shape that was measured"""
    reasons: dict[str, str]
    """field that is None -> why"""


class _Layers(NamedTuple):
    """Numbers of one virtual token that are kept after training."""

    values: np.ndarray  # [L] in its key and value
    gate: np.ndarray  # [L]
    key_width: np.ndarray  # [L] in its key


def token_costs(info: RunInfo, inference: Inference | None = None) -> TokenCosts:
    """What one more virtual token of each layer costs.

    Args:
        info: of the run; an older one without shapes is counted from its parameters, all layers taken to be alike.
        inference: of the run, for milliseconds.

    Raises:
        AptValueError: if ``apt_config`` of the run is none.
    """
    config = AptConfig(**info.apt_config)
    layers = _layers_of(info, config)
    reasons: dict[str, str] = {}
    parameters = adapter = cache = adds = once = None
    if layers is None:
        reasons |= dict.fromkeys(("parameters", "adapter_bytes"), OLDER_RUN)
    else:
        adapter = TRAINED_BYTES * (layers.values + layers.gate)
        parameters = (layers.key_width if config.prefix_projection else layers.values) + layers.gate
    size = BYTES.get(info.backbone_dtype)
    if layers is not None and size is not None:
        cache = size * layers.values
    elif info.backbone_dtype:
        reasons["kv_cache_bytes"] = f"its backbone is of type {info.backbone_dtype}; known are {', '.join(BYTES)}"
    else:
        reasons["kv_cache_bytes"] = OLDER_RUN
    if info.layer_shapes:
        adds, once = _multiply_adds(info, config)
    else:
        reasons |= dict.fromkeys(("multiply_adds", "sequence_multiply_adds"), OLDER_RUN)
    milliseconds = None
    if inference is None:
        reasons["milliseconds"] = NOT_MEASURED
    elif inference.token_milliseconds is None:
        reasons["milliseconds"] = IN_THE_NOISE
    else:
        milliseconds = _bounded(np.array(inference.token_milliseconds))
    return TokenCosts(parameters, adapter, cache, adds, milliseconds, once, reasons)


def cost_of(info: RunInfo, lengths: Sequence[int], inference: Inference | None = None) -> Cost:
    """What a model like the run's with other prefix lengths costs.

    Args:
        info: of the run, whose backbone, method and head the model has.
        lengths: virtual tokens per layer (L integers).
        inference: of the run, for milliseconds.

    Raises:
        AptValueError: if ``lengths`` are not L integers from 0 to ``MAX_TOKENS_PER_LAYER``, or ``apt_config`` of the
            run is none.
    """
    if len(lengths) != info.num_layers or not all(0 <= length <= MAX_TOKENS_PER_LAYER for length in lengths):
        accepted = f"{info.num_layers} integers from 0 to {MAX_TOKENS_PER_LAYER}, one per layer"
        raise bad_value("prefix_lengths", list(lengths), accepted)
    costs, config = token_costs(info, inference), AptConfig(**info.apt_config)
    tokens = np.array(lengths, dtype=np.int64)
    has_prefix = tokens > 0
    head = info.num_parameters.get("head", 0)
    scales = int(has_prefix.sum()) if config.layer_scale else 0
    parameters = adapter = milliseconds = None
    if costs.adapter_bytes is not None:
        adapter = int(tokens @ costs.adapter_bytes) + TRAINED_BYTES * (scales + head)
    if costs.parameters is not None:
        parameters = int(tokens @ costs.parameters + has_prefix @ _projections(info, config)) + scales + head
    if costs.milliseconds is not None:
        fixed = _bounded(inference.layer_milliseconds or 0.0)
        milliseconds = float(tokens @ costs.milliseconds + fixed * has_prefix.sum())
    return Cost(
        prefix_lengths=tuple(int(length) for length in lengths),
        parameters=parameters,
        adapter_bytes=adapter,
        kv_cache_bytes=_sum(tokens, costs.kv_cache_bytes),
        multiply_adds=_sum(tokens, costs.multiply_adds),
        sequence_multiply_adds=_sum(tokens, costs.sequence_multiply_adds),
        milliseconds=milliseconds,
        reasons=costs.reasons,
    )


def _bounded(milliseconds: np.ndarray | float) -> np.ndarray:
    return np.clip(milliseconds, -MOST_MILLISECONDS, MOST_MILLISECONDS)


def _sum(tokens: np.ndarray, each: np.ndarray | None) -> int | None:
    return None if each is None else int(tokens @ each)


def _layers_of(info: RunInfo, config: AptConfig) -> _Layers | None:
    """None for an older run from whose parameters it cannot be told."""
    if info.layer_shapes:
        heads, key, value, hidden, _ = _shapes(info)
        gate = {"hidden": hidden + (config.gate_init != 0.5), "static": np.ones_like(hidden)}
        return _Layers(heads * (key + value), gate.get(config.token_gate, np.zeros_like(hidden)), heads * key)
    total, counts = info.total_tokens, info.num_parameters
    parts = (counts.get("prefix", 0), counts.get("token_gate", 0))
    if not total or not parts[0] or any(part % total for part in parts) or config.prefix_projection:
        return None
    values, gate = (np.full(info.num_layers, part // total) for part in parts)
    return _Layers(values, gate, values)


def _shapes(info: RunInfo) -> np.ndarray:
    """Key/value heads, key size, value size, hidden size, query heads [5, L]."""
    return np.array(info.layer_shapes, dtype=np.int64).T


def _projections(info: RunInfo, config: AptConfig) -> np.ndarray:
    """Parameters of the projection of a layer that has a prefix [L], beside its embedding: two linear maps."""
    if not config.prefix_projection:
        return np.zeros(info.num_layers, dtype=np.int64)
    heads, key, value, *_ = _shapes(info)
    inner = config.encoder_hidden_size or heads * key
    return (heads * key + 1) * inner + (inner + 1) * heads * (key + value)


def _multiply_adds(info: RunInfo, config: AptConfig) -> tuple[np.ndarray, np.ndarray]:
    """Of one virtual token per query position [L], and once per sequence [L]."""
    heads, key, value, hidden, query_heads = _shapes(info)
    attention = query_heads * (key + value)
    if config.token_gate != "hidden":
        return attention, np.zeros_like(attention)
    by_position = np.full(info.num_layers, config.gate_pooling == "per-position")
    if config.gate_pooling == "auto":
        by_position = np.array([kind != "encoder" for kind in info.layer_kinds])
    return attention + by_position * (hidden + 2 * query_heads), ~by_position * (hidden + heads * (key + value))


def costs_table(costs: dict[str, Cost]) -> pd.DataFrame:
    """A row for each named cost, with units in the columns' names; what is known of none has no column.

    Args:
        costs: name -> cost, of models of one run.
    """
    columns = {
        "trained parameters": [cost.parameters for cost in costs.values()],
        "adapter (kB)": [_thousandth(cost.adapter_bytes) for cost in costs.values()],
        "KV cache per sequence (kB)": [_thousandth(cost.kv_cache_bytes) for cost in costs.values()],
        "multiply-adds per query position": [cost.multiply_adds for cost in costs.values()],
        "multiply-adds per sequence": [cost.sequence_multiply_adds for cost in costs.values()],
        "added to a pass (ms)": [cost.milliseconds for cost in costs.values()],
    }
    known = {name: values for name, values in columns.items() if None not in values}
    tokens = [sum(cost.prefix_lengths) for cost in costs.values()]
    return pd.DataFrame({"lengths": list(costs), "virtual tokens": tokens, **known})


def _thousandth(count: int | None) -> float | None:
    return None if count is None else count / 1000
