"""What the paper compares, as settings of ``python -m apt_core train``; lengths that follow from APT's runs. No torch.

Zhang et al., ACL 2023, arXiv 2305.15212. Axes: L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.shares import share

FINE_TUNING_FACTOR = 0.01
"""a learning rate of the grid times this is the one for all weights, which a prefix's rate would destroy"""
_NO_GATES = ("--token-gate", "none", "--no-layer-scale")


class Method(NamedTuple):
    """One row of the tables."""

    title: str
    about: str
    words: tuple[str, ...] = ()
    """options of ``train`` beside lengths, data and optimizer"""
    lengths: Literal["equal", "gates", "parameters"] = "equal"
    """equal: the same in every layer; gates: in proportion to APT's gates; parameters: as many more as APT's gates
    have parameters for"""
    all_weights: bool = False
    gate_factor: float = 1.0
    """the learning rate of gates and scales is the prefix's times this"""

    @property
    def has_token_gates(self) -> bool:
        """Whether there is an alpha."""
        return not self.all_weights and "none" not in self.words


METHODS: dict[str, Method] = {
    "fine-tuning": Method("fine-tuning", "all weights of the backbone, no prefix", all_weights=True),
    "pt2": Method("PT-2", "P-tuning v2: prefixes without gates", _NO_GATES),
    "apt": Method("APT", "token gates from the hidden state and a scale for every layer"),
    "pt2-star": Method("PT-2*", "PT-2 with lengths in proportion to the gates of APT's run of the same seed: in all as "
                       "many virtual tokens as these gates add up to, at most PT-2's; PT-2's if that run diverged",
                       _NO_GATES, "gates"),
    "pt2-plus": Method("PT-2+", "PT-2 with so many more virtual tokens that it trains as many parameters as APT",
                       _NO_GATES, "parameters"),
    "without-h": Method("APT without h", "one learned gate per virtual token, the same for every input",
                        ("--token-gate", "static")),
    "without-alpha": Method("APT without alpha", "no token gates", ("--token-gate", "none")),
    "without-lambda": Method("APT without lambda", "no layer scales", ("--no-layer-scale",)),
    "apt-mean": Method("APT, mean h", "h is the mean over the positions of the text, not the first one",
                       ("--gate-pooling", "mean")),
    "apt-positions": Method("APT, every h", "each position of the text has its own h, and so its own gates",
                            ("--gate-pooling", "per-position")),
    "apt-slow-gates": Method("APT, slow gates", "gates and scales learn with a tenth of the prefix's learning rate",
                             gate_factor=0.1),
}  # fmt: skip
APT, PT2, STAR, PLUS = "apt", "pt2", "pt2-star", "pt2-plus"
VARIANTS = ("apt-mean", "apt-positions", "apt-slow-gates")
"""trained only if asked for: other readings of eq. 3, where the paper's text leaves open which position's hidden state
h is, and gates with a learning rate of their own"""
ABLATIONS = ("without-h", "without-alpha", "without-lambda")


def rates_of(method: str, grid: Sequence[float]) -> list[float]:
    """The learning rates of the grid as a method uses them."""
    factor = FINE_TUNING_FACTOR if METHODS[method].all_weights else 1.0
    return [float(f"{rate * factor:.6g}") for rate in grid]


def star_lengths(gate_mass: Sequence[float], most: int) -> tuple[int, ...]:
    """PT-2*: in proportion to the gates (section 4.3), with as many virtual tokens as they add up to.

    Args:
        gate_mass: final weights of APT's gates, summed over each layer's virtual tokens [L].
        most: virtual tokens of PT-2 over all layers.
    """
    total = min(most, max(1, round(sum(gate_mass))))
    return tuple(share(gate_mass, total).tolist())


def plus_lengths(parameters: Mapping[str, int], token_sizes: Sequence[int]) -> tuple[int, ...]:
    """PT-2+: equal lengths, to a token, whose parameters come closest to those of APT's prefix, gates and scales.

    Args:
        parameters: of APT by part: prefix, token_gate, layer_scale.
        token_sizes: parameters of one virtual token of each layer, without gates [L].
    """
    wanted = sum(parameters.get(part, 0) for part in ("prefix", "token_gate", "layer_scale"))
    layers = len(token_sizes)
    most = layers * MAX_TOKENS_PER_LAYER
    middle = min(most, round(wanted / np.mean(token_sizes)))
    totals = range(max(1, middle - layers), min(middle + layers, most) + 1)
    candidates = [share(np.ones(layers), total) for total in totals]
    return tuple(min(candidates, key=lambda lengths: abs(int(lengths @ np.asarray(token_sizes)) - wanted)).tolist())
