"""Who is compared in a cell of the speed benchmark: each is built on the backbone and gives a call to time.

Runs in this project's environment and, for the library ``adapters``, in one of its own, which has another transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmarks.speed_cells import CACHE, Cell

Run = Callable[[], object]
"""one training step, one forward pass, or the decoding of one token"""
Builder = Callable[[nn.Module, Cell], nn.Module]
"""changes a backbone in place, or wraps it"""

BACKBONE = "frozen backbone"
PEFT = "PEFT PrefixTuning"
P_TUNING = "P-tuning v2's scheme"
ADAPTERS = "adapters, gated prefix tuning"
NO_GATES, STATIC, HIDDEN = "APT, no gates", "APT, static gates", "APT, hidden gates"
PER_POSITION = "APT, gates per position"
PRUNED = {"APT, pruned to 50 %": 2, "APT, pruned to 25 %": 4}
"""what the total number of virtual tokens is divided by"""
GATE_MASS = (9.6545, 12.1783, 11.7241, 12.3445, 19.1068, 10.2458)
"""per layer, of a COPA run (the first of benchmarks/results/retraining.json): pruned lengths are in proportion to it,
interpolated to the backbone's layers"""


def backbone(cell: Cell) -> nn.Module:
    """The cell's model with a task head, seeded."""
    torch.manual_seed(0)
    settings = dict(cell.size.settings)
    if cell.mode == "training without dropout":
        settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = getattr(transformers, cell.size.config)(**settings)
    head = "LlamaForCausalLM" if cell.size.is_decoder else "BertForSequenceClassification"
    return getattr(transformers, head)(config)


def batch_of(cell: Cell) -> dict[str, Tensor]:
    """Texts of the cell's length; the second one is a tenth shorter, so that there is a mask."""
    draw = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1000, 8000, (cell.size.batch, cell.size.length), generator=draw)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, -(cell.size.length // 10) :] = 0
    labels = input_ids if cell.size.is_decoder else torch.arange(cell.size.batch) % 2
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def pruned_lengths(cell: Cell, divisor: int) -> tuple[int, ...]:
    """Virtual tokens per layer [L] of a ``divisor``-th of the cell's total."""
    from apt_core.shares import share

    num_layers = cell.size.num_layers
    places = np.linspace(0, len(GATE_MASS) - 1, num_layers)
    mass = np.interp(places, np.arange(len(GATE_MASS)), GATE_MASS)
    return tuple(share(mass, cell.num_virtual_tokens * num_layers // divisor).tolist())


def frozen(model: nn.Module, cell: Cell) -> nn.Module:
    """The backbone alone: its head is trained, and gradients go through the activations of all layers.

    They end where those of a prefix end, at the keys and values of the first layer: what is before is computed for
    nobody.
    """
    _only_head(model, cell)
    names = ("k_proj", "v_proj") if cell.size.is_decoder else ("key", "value")
    for name in names:
        first = next(each for path, each in model.named_modules() if path.split(".")[-1] == name)
        first.register_forward_hook(lambda _, given, output: output.requires_grad_(torch.is_grad_enabled()))
    return model


def _only_head(model: nn.Module, cell: Cell) -> nn.Module:
    """Nothing but the task head, if there is one, is trained."""
    model.requires_grad_(False)
    if not cell.size.is_decoder:
        model.classifier.requires_grad_(True)
    return model


def apt(model: nn.Module, cell: Cell, divisor: int = 1, **config: Any) -> nn.Module:
    """This project."""
    from apt_core import AptConfig, get_apt_model

    lengths = pruned_lengths(cell, divisor) if divisor > 1 else (cell.num_virtual_tokens,) * cell.size.num_layers
    return get_apt_model(model, AptConfig(prefix_lengths=lengths, **config))


def peft(model: nn.Module, cell: Cell) -> nn.Module:
    """PEFT's prefix tuning, keys and values trained directly."""
    from peft import PrefixTuningConfig, get_peft_model

    task = "CAUSAL_LM" if cell.size.is_decoder else "SEQ_CLS"
    return get_peft_model(model, PrefixTuningConfig(task_type=task, num_virtual_tokens=cell.num_virtual_tokens))


class PTuning(nn.Module):
    """P-tuning v2's scheme (Liu et al., 2022) as in its authors' code, on the transformers that is installed.

    A table holds the keys and values of all layers; they are handed to the backbone as ``past_key_values``.
    """

    def __init__(self, model: nn.Module, cell: Cell) -> None:
        super().__init__()
        self.model = _only_head(model, cell)
        self.length, config = cell.num_virtual_tokens, model.config
        self.heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        self.layers, self.size = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
        self.table = nn.Embedding(self.length, self.layers * 2 * self.heads * self.size)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.0))

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Any:
        rows = len(attention_mask)
        table = self.table(torch.arange(self.length).expand(rows, -1))
        table = self.dropout(table.view(rows, self.length, 2 * self.layers, self.heads, self.size))
        cache = transformers.DynamicCache()
        for layer, (key, value) in enumerate(table.permute(2, 0, 3, 1, 4).split(2)):
            cache.update(key, value, layer)
        mask = torch.cat([attention_mask.new_ones(rows, self.length), attention_mask], dim=1)
        return self.model(attention_mask=mask, past_key_values=cache, **inputs)


def gated_adapters(model: nn.Module, cell: Cell) -> nn.Module:
    """Prefix tuning of the library ``adapters``, with its gate (UniPELT's), keys and values trained directly."""
    import adapters

    adapters.init(model)
    config = adapters.PrefixTuningConfig(flat=True, prefix_length=cell.num_virtual_tokens, use_gating=True)
    model.add_adapter("prefix", config=config)
    model.train_adapter("prefix")
    return model


def builders(cell: Cell, *, other_environment: bool = False) -> dict[str, Builder]:
    """Everyone who takes part in a cell, by name; in the environment of ``adapters`` only it and the backbone."""
    if other_environment:
        return {} if cell.mode == "decoding" else {BACKBONE: frozen, ADAPTERS: gated_adapters}
    per_position = {"gate_pooling": "per-position"}
    gates = per_position if cell.size.is_decoder else {}
    found: dict[str, Builder] = {
        BACKBONE: frozen,
        NO_GATES: partial(apt, token_gate="none", layer_scale=False),
        STATIC: partial(apt, token_gate="static"),
        **({} if cell.size.is_decoder else {HIDDEN: apt}),
        PER_POSITION: partial(apt, **per_position),
        **{name: partial(apt, divisor=divisor, **gates) for name, divisor in PRUNED.items()},
        PEFT: peft,
    }
    if cell.mode != "decoding":  # where PEFT's prefix is in the cache too, and all that follows is the same
        found[P_TUNING] = PTuning
    return found


def full_name(cell: Cell) -> str:
    """The contender that the pruned ones were pruned from."""
    return PER_POSITION if cell.size.is_decoder else HIDDEN


def twin(model: nn.Module) -> nn.Module:
    """The model once more, on the same weights, but for a head of its own."""
    shared = {
        id(parameter): parameter for name, parameter in model.named_parameters() if not name.startswith("classifier")
    }
    return copy.deepcopy(model, shared)


def prepared(build: Builder, model: nn.Module, cell: Cell) -> Run:
    """What to time, ready to be called again and again."""
    module = build(model, cell)
    if cell.mode == "decoding":
        return decoding(module.eval())
    batch = batch_of(cell)
    if cell.mode == "inference":
        module.eval()
        del batch["labels"]
        return torch.inference_mode()(lambda: module(**batch))
    module.train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None

    def step() -> None:
        module(**batch).loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def prefilled(module: nn.Module, cache: Any = None) -> tuple[nn.Module, Any, int]:
    """A decoder, its cache after ``CACHE`` sub-words, and how many positions are then in it."""
    draw = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1000, 8000, (1, CACHE), generator=draw)
    given = {} if cache is None else {"past_key_values": cache}
    with torch.inference_mode():
        cache = module(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=True, **given)
        cache = cache.past_key_values
    if hasattr(module, "get_base_model"):  # PEFT: its prefix is in the cache, and the backbone goes on alone
        module = module.get_base_model()
    return module, cache, cache.get_seq_length()


def decoding(module: nn.Module) -> Run:
    """Decodes one token after ``CACHE`` others, always the same one."""
    module, cache, length = prefilled(module)
    token, mask = torch.full((1, 1), 1234), torch.ones(1, length + 1, dtype=torch.long)

    @torch.inference_mode()
    def step() -> None:
        module(input_ids=token, attention_mask=mask, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    return step


def names(cells: Sequence[Cell]) -> list[str]:
    """All contenders of some cells, in the order of a table."""
    found = [name for cell in cells for name in builders(cell)]
    return [*dict.fromkeys(found), ADAPTERS]
