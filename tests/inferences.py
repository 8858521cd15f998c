"""An ``inference.json`` without torch: every number can be computed from the arguments."""

from __future__ import annotations

from typing import Any

from apt_core.inference_format import Inference, Kind, Quality, Spread, Variant


def make_inference(lengths: tuple[int, ...], **fields: Any) -> Inference:
    """A backbone, a full run, one pruned to half, one switched, one untrained."""
    total, num_layers = sum(lengths), len(lengths)
    half = tuple(length // 2 for length in lengths)
    variants = [
        _variant("frozen backbone", "backbone", (0,) * num_layers, 0.9, 1.2),
        _variant("full run", "full", lengths, 1.0, 0.8),
        _variant(f"pruned to {sum(half)}", "pruned", half, 0.95, 0.85),
        _variant("gates under 0.5 off", "switched", lengths, 1.01, 0.81, threshold=0.5, tokens=total / 3),
        _variant("64 in every layer", "longer", (64,) * num_layers, 1.3, None),
    ]
    given: dict[str, Any] = {
        "split": "validation",
        "metric_name": "accuracy",
        "prefix_lengths": list(lengths),
        "num_examples": 50,
        "device": "cpu",
        "num_threads": 1,
        "attention": "sdpa",
        "batch_size": 4,
        "batch_shape": [4, 17],
        "repetitions": 20,
        "variants": variants,
        "token_cost": Spread(0.01, 0.008, 0.013),
        "layer_cost": Spread(0.1, 0.05, 0.2),
        "token_milliseconds": [0.01] * num_layers,
        "layer_milliseconds": 0.1,
        "notes": ["50 of 100 examples were drawn."],
    }
    return Inference(**{**given, **fields})


def _variant(
    name: str, kind: Kind, lengths: tuple[int, ...], ratio: float, loss: float | None, **fields: Any
) -> Variant:
    near = Spread(ratio, ratio - 0.02, ratio + 0.02)
    quality = None
    if loss is not None:
        quality = Quality(
            metric=1 - loss / 2,
            loss=loss,
            loss_difference=None if kind == "full" else loss - 0.8,
            loss_difference_half=None if kind == "full" else 0.02,
        )
    given = {"tokens": sum(lengths), "layers": sum(length > 0 for length in lengths)}
    return Variant(
        name=name,
        kind=kind,
        prefix_lengths=list(lengths),
        milliseconds=Spread(100 * ratio, 100 * ratio - 5, 100 * ratio + 5),
        against_backbone=Spread(*(part / 0.9 for part in near)),
        against_full=Spread(1, 1, 1) if kind == "full" else near,
        quality=quality,
        **{**given, **fields},
    )
