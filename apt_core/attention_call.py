"""One call of a module's attention function, as transformers made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from apt_core.masks import Mask


class AttentionCall(NamedTuple):
    """B batch, H key/value heads, Q queries, K keys, D head size."""

    function: Callable
    """what the real config names; takes the fields below from ``module`` on"""
    implementation: str | None
    """its name, such as ``sdpa``; None is eager"""
    module: Any
    query: Tensor  # [B, heads, Q, D]
    key: Tensor  # [B, H, K, D]
    value: Tensor  # [B, H, K, D]
    mask: Mask
    arguments: dict[str, Any]

    @property
    def is_flash(self) -> bool:
        """Whether the implementation is one of the flash attention packages."""
        return self.implementation is not None and "flash" in self.implementation

    @property
    def is_eager(self) -> bool:
        """Whether the attention weights are asked for too."""
        return self.implementation in (None, "eager")

    @property
    def needs_causal_mask(self) -> bool:
        """Whether causality was left to sdpa, which aligns it to the first key: wrong with a prefix in front."""
        is_causal = self.arguments.get("is_causal")
        if is_causal is None:
            is_causal = getattr(self.module, "is_causal", True)
        return self.mask is None and self.implementation == "sdpa" and self.query.shape[2] > 1 and bool(is_causal)

    def without_empty_cache(self) -> AttentionCall:
        """At the prefill of a static cache there are more keys than queries: the rest of them is still empty."""
        queries = self.query.shape[2]
        if self.key.shape[2] <= queries:
            return self
        arguments = dict(self.arguments)
        if arguments.get("position_bias") is not None:
            arguments["position_bias"] = arguments["position_bias"][..., :queries]
        return self._replace(key=self.key[:, :, :queries], value=self.value[:, :, :queries], arguments=arguments)

    def run(self) -> tuple[Tensor, Tensor | None]:
        """Output [B, Q, heads, D], and the weights [B, heads, Q, K] where the implementation gives them."""
        return self.function(self.module, self.query, self.key, self.value, self.mask, **self.arguments)
