"""DeBERTa-v2 and v3 have no attention interface: a subclass of their self-attention adds the prefix columns.

The scores of virtual tokens have no position bias. Axes: B batch, H heads, T sequence, P virtual tokens, D head size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from apt_core.prefix import GatedPrefix, LayerPrefix, LayerShape

PREFIX_MODULE = "apt_prefix"
_HOME = "transformers.models.deberta_v2.modeling_deberta_v2"


def is_disentangled(module: nn.Module) -> bool:
    """Whether a module is DeBERTa-v2's self-attention."""
    return any(
        base.__module__ == _HOME and base.__name__ == "DisentangledSelfAttention" for base in type(module).__mro__
    )


def shape_of(module: nn.Module) -> LayerShape:
    """Sizes that a prefix of this module must have."""
    size, heads = module.attention_head_size, module.num_attention_heads
    return LayerShape(heads, size, size, module.query_proj.in_features, heads)


def attach(module: nn.Module, prefix: LayerPrefix) -> None:
    """Makes ``module`` attend to ``prefix``, which becomes its submodule."""
    module.add_module(PREFIX_MODULE, prefix)
    module.__class__ = _with_prefix()


def detach(module: nn.Module) -> None:
    """Takes the prefix off."""
    module.__class__ = type(module).__mro__[1]
    del module._modules[PREFIX_MODULE]


@cache
def _with_prefix() -> type[nn.Module]:
    from transformers.models.deberta_v2 import modeling_deberta_v2 as deberta_v2

    class DisentangledSelfAttentionWithPrefix(deberta_v2.DisentangledSelfAttention):
        """Disentangled attention over [prefix; sequence]."""

        def forward(
            self,
            hidden_states: Tensor,
            attention_mask: Tensor,
            output_attentions: bool = False,
            query_states: Tensor | None = None,
            relative_pos: Tensor | None = None,
            rel_embeddings: Tensor | None = None,
            **_: Any,
        ) -> tuple[Tensor, Tensor | None]:
            prefix: GatedPrefix = self._modules[PREFIX_MODULE](hidden_states, attention_mask.bool())
            if not prefix.key.shape[2]:
                return super().forward(
                    hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
                )
            heads, batch = self.num_attention_heads, hidden_states.shape[0]
            query = self.transpose_for_scores(
                self.query_proj(hidden_states if query_states is None else query_states), heads
            )  # [B H, T, D]
            key = self.transpose_for_scores(self.key_proj(hidden_states), heads)
            value = self.transpose_for_scores(self.value_proj(hidden_states), heads)
            factor = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
            scale = deberta_v2.scaled_size_sqrt(query, factor).to(query.dtype)
            main = torch.bmm(query, key.transpose(-1, -2) / scale)
            if self.relative_attention:
                embeddings = self.pos_dropout(rel_embeddings)
                main = main + self.disentangled_attention_bias(query, key, relative_pos, embeddings, factor)
            main = main.view(batch, heads, *main.shape[-2:])
            main = main.masked_fill(~attention_mask.bool(), torch.finfo(query.dtype).min)
            front = query.view(batch, heads, *query.shape[1:]) @ (prefix.key.to(query.dtype) / scale).transpose(-1, -2)
            if prefix.query_gate is not None:
                front = front * prefix.query_gate[:, None].to(query.dtype)
            if prefix.visible is not None:
                front = front.masked_fill(~prefix.visible[:, None], torch.finfo(query.dtype).min)
            weights = self.dropout(torch.softmax(torch.cat([front, main], dim=-1), dim=-1))  # [B, H, T, P + T]
            length = front.shape[-1]
            share, on_main = weights[..., :length], weights[..., length:]
            on_prefix = share
            if prefix.query_gate is not None:
                on_prefix = share * prefix.query_gate[:, None].to(query.dtype)
            output = on_prefix @ prefix.value.to(query.dtype) + on_main @ value.view(batch, heads, *value.shape[1:])
            output = output.permute(0, 2, 1, 3)
            if prefix.watch is not None:
                prefix.watch(share.detach(), output)
            return output.flatten(2), (weights if output_attentions else None)

    return DisentangledSelfAttentionWithPrefix
