"""Measures of a simulated run whose truth is known: what each virtual token adds, and which order removes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from apt_core.measure_format import IMPORTANCES, RANDOM, REVERSED, Curve, Measures, Point

FRACTIONS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16, 0)


def layered_effects(seed: int, num_layers: int = 6, num_tokens: int = 8) -> list[np.ndarray]:
    """What each token lowers the loss by: layers differ much, tokens of a layer somewhat; nats, summing to 1."""
    random = np.random.default_rng(seed)
    effects = random.gamma(0.7, size=(num_layers, 1)) * random.gamma(2, size=(num_layers, num_tokens))
    return list(effects / effects.sum())


def simulate(
    effects: Sequence[np.ndarray],
    importance: Mapping[str, Sequence[np.ndarray]] | None = None,
    *,
    num_examples: int = 100,
    random_orders: int = 5,
    tokens: bool = False,
    noise: float = 0.02,
    seed: int = 0,
) -> Measures:
    """Removing tokens raises the loss of an example by their effects x its sensitivity, plus noise.

    Args:
        effects: [L][P] nats.
        importance: key of ``IMPORTANCES`` -> [L][P]; others than those given order by the effects.
        num_examples: N.
        random_orders: how many random curves.
        tokens: whether every token is left out by itself.
        noise: standard deviation of each loss at each point, nats; the full model has none.
        seed: of examples, noise and random orders.
    """
    random = np.random.default_rng(seed)
    lengths = [len(layer) for layer in effects]
    flat = np.concatenate(effects)
    total = len(flat)
    base, sensitivity = random.gamma(2, 0.2, num_examples), random.gamma(2, 0.5, num_examples)

    def point(keep: np.ndarray) -> Point:
        losses = base + sensitivity * flat[~keep].sum()
        if not keep.all():
            losses = losses + random.normal(0, noise, num_examples)
        return Point(metric=float(np.clip(0.9 - 0.4 * flat[~keep].sum(), 0, 1)), losses=losses.tolist())

    def curve(name: str, order: np.ndarray) -> Curve:
        kept = sorted({round(fraction * total) for fraction in FRACTIONS}, reverse=True)
        keeps = [np.isin(np.arange(total), order[total - count :]) for count in kept]
        return Curve(order=name, kept=kept, points=[point(keep) for keep in keeps])

    known = {name: list(effects) for name in IMPORTANCES} | dict(importance or {})
    curves = []
    for name, values in known.items():
        order = np.argsort(np.concatenate(values), kind="stable")
        curves += [curve(name, order), curve(name + REVERSED, order[::-1])]
    curves += [curve(f"{RANDOM}{number}", random.permutation(total)) for number in range(1, random_orders + 1)]
    layer_of = np.repeat(np.arange(len(lengths)), lengths)
    singles = iter([point(np.arange(total) != token) for token in range(total)] if tokens else [])
    measures = Measures(
        metric_name="accuracy",
        prefix_lengths=lengths,
        example_ids=[str(number) for number in range(num_examples)],
        examples_available=num_examples,
        importance={name: [list(map(float, layer)) for layer in values] for name, values in known.items()},
        full=point(np.ones(total, bool)),
        empty=point(np.zeros(total, bool)),
        layers=[point(layer_of != layer) if length else None for layer, length in enumerate(lengths)],
        tokens=[[next(singles) for _ in range(length)] for length in lengths] if tokens else None,
        curves=curves,
    )
    measures.check(lengths)
    return measures


def shuffled(values: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The same numbers at random places over all layers."""
    flat = np.random.default_rng(seed).permutation(np.concatenate(values))
    return np.split(flat, np.cumsum([len(layer) for layer in values])[:-1])


def layers_shuffled(values: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Whole layers, all of the same length, at random places, and their tokens at random places inside them.

    A layer that by chance stays where it was would otherwise keep the right order of its tokens.
    """
    random = np.random.default_rng(seed)
    return [random.permutation(values[layer]) for layer in random.permutation(len(values))]
