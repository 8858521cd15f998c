"""What a decoding step copies of its key/value cache: ``python -m benchmarks.speed_copies``.

Every operation of one step is watched; counted are the tensors it makes, not views, that are at least as large as the
cached keys of one layer. A ``DynamicCache`` appends by copying itself, a ``StaticCache`` is written in place.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.contenders import BACKBONE, PER_POSITION, STATIC, backbone, builders, prefilled, twin
from benchmarks.speed_cells import CACHE, CELLS, Cell

CACHES = ("DynamicCache", "StaticCache")
WATCHED = (BACKBONE, STATIC, PER_POSITION)


class _TensorsMade(TorchDispatchMode):
    """Bytes of each tensor that an operation makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        made = operation(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.sizes.append(each.numel() * each.element_size())
        return made


def copies(module: nn.Module, cache_kind: str) -> int:
    """Tensors of the size of one layer's cached keys, or larger, that the step after ``CACHE`` others makes."""
    cache = transformers.DynamicCache()
    if cache_kind == "StaticCache":
        cache = transformers.StaticCache(config=module.config, max_cache_len=CACHE + 8)
    module, cache, length = prefilled(module, cache)
    keys = cache.layers[0].keys
    layer = keys.shape[1] * CACHE * keys.shape[3] * keys.element_size()
    with torch.inference_mode(), _TensorsMade() as made:
        module(
            input_ids=torch.full((1, 1), 1234),
            attention_mask=torch.ones(1, length + 1, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
        )
    return sum(size >= layer for size in made.sizes)


def measure(cell: Cell) -> dict[str, dict[str, int]]:
    """Contender -> kind of cache -> copies."""
    model, chosen = backbone(cell), builders(cell)
    return {name: {kind: copies(chosen[name](twin(model), cell).eval(), kind) for kind in CACHES} for name in WATCHED}


def main() -> None:
    transformers.logging.set_verbosity_error()
    cell = next(cell for cell in CELLS.values() if cell.mode == "decoding")
    print(json.dumps({"cell": cell.key, "layers": cell.size.num_layers, "tensors": measure(cell)}))


if __name__ == "__main__":
    main()
