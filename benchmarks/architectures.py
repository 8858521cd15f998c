"""Which architectures prefixes are right on: ``python -m benchmarks.architectures`` writes ``docs/architectures.md``.

Every architecture is built small and seeded from its config, gets prefixes of a different length in every layer, and
is held against itself: without prefixes, with other attention implementations, with padding, with a key/value cache,
with later tokens changed, saved and loaded. The tests run the same checks.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from apt_core import AptConfig, AptModel, get_apt_model
from apt_core.errors import AptError
from apt_core.sites import find_sites
from benchmarks.small_backbones import ARCHITECTURES, batch_of, build, is_decoder_only, with_prefixes

IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention")
TOLERANCE = 1e-4
VISIBLE = 0.01


def logits(model: PreTrainedModel, batch: dict[str, Tensor], **arguments: Any) -> Tensor:
    """[B, C] or [B, T, vocabulary]."""
    with torch.no_grad():
        return model(**batch, **arguments).logits


def difference(expected: Tensor, received: Tensor) -> float:
    """Largest absolute difference, in standard deviations of what is expected."""
    return ((expected - received).abs().max() / expected.std()).item()


def check_zero_lengths(name: str, implementation: str) -> float:
    """Without virtual tokens, the backbone bit for bit: 0, or infinity."""
    model = build(name, implementation)
    batch = batch_of(model)
    expected = logits(model, batch)
    num_layers = len(find_sites(copy.deepcopy(model)))
    received = logits(get_apt_model(model, AptConfig(prefix_lengths=(0,) * num_layers)).eval(), batch)
    if difference(expected, logits(with_prefixes(name, implementation), batch)) < VISIBLE:
        return float("inf")  # prefixes must make a difference, or the other checks say nothing
    return 0.0 if torch.equal(expected, received) else float("inf")


def check_against_eager(name: str, implementation: str) -> float:
    """The same prefixes under another attention implementation."""
    model = with_prefixes(name)
    batch = batch_of(model)
    expected = logits(model, batch)
    if name != "DeBERTa-v2":
        model.set_attn_implementation(implementation)
    real = batch["attention_mask"].bool()
    received = logits(model, batch)
    if is_decoder_only(model):
        return difference(expected[real], received[real])
    return difference(expected, received)


def check_padding(name: str, implementation: str) -> float:
    """The shorter text alone gives what it gives in the padded batch."""
    model = with_prefixes(name, implementation)
    batch = batch_of(model)
    keep = batch["attention_mask"][1].bool()
    alone = {key: value[1:] if key == "decoder_input_ids" else value[1:, keep] for key, value in batch.items()}
    together, apart = logits(model, batch)[1:], logits(model, alone)
    return difference(together[:, keep] if is_decoder_only(model) else together, apart)


def check_cache(name: str, implementation: str) -> float | None:
    """Decoding token by token with a key/value cache gives what one pass over all gives; None for encoders."""
    model = with_prefixes(name, implementation)
    if not (is_decoder_only(model) or model.config.is_encoder_decoder):
        return None
    batch = batch_of(model)
    expected = logits(model, batch, use_cache=False)
    if model.config.is_encoder_decoder:
        return difference(_decoded_after_encoder(model, batch), expected)
    steps, past = [], None
    for position in range(batch["input_ids"].shape[1]):
        with torch.no_grad():
            output = model(
                input_ids=batch["input_ids"][:, position : position + 1],
                attention_mask=batch["attention_mask"][:, : position + 1],
                position_ids=batch["position_ids"][:, position : position + 1],
                past_key_values=past,
                use_cache=True,
            )
        past = output.past_key_values
        steps.append(output.logits)
    real = batch["attention_mask"].bool()
    return difference(torch.cat(steps, dim=1)[real], expected[real])


def _decoded_after_encoder(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        encoded = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    steps, past = [], None
    for position in range(batch["decoder_input_ids"].shape[1]):
        with torch.no_grad():
            output = model(
                encoder_outputs=encoded,
                attention_mask=batch["attention_mask"],
                decoder_input_ids=batch["decoder_input_ids"][:, position : position + 1],
                past_key_values=past,
                use_cache=True,
            )
        past = output.past_key_values
        steps.append(output.logits)
    return torch.cat(steps, dim=1)


def check_causality(name: str, implementation: str) -> float | None:
    """Changing a later token changes no earlier output; no padding, so that no mask is given; None for encoders."""
    model = with_prefixes(name, implementation)
    batch = batch_of(model)
    if model.config.is_encoder_decoder:
        batch = {"input_ids": batch["input_ids"][:1], "decoder_input_ids": batch["decoder_input_ids"][:1]}
        tokens = "decoder_input_ids"
    elif is_decoder_only(model):
        batch = {"input_ids": batch["input_ids"][:1]}
        tokens = "input_ids"
    else:
        return None
    changed = {key: value.clone() for key, value in batch.items()}
    changed[tokens][:, -2:] = torch.where(changed[tokens][:, -2:] == 5, 6, 5)
    before, after = logits(model, batch), logits(model, changed)
    if difference(before[:, -2:], after[:, -2:]) == 0:
        return float("inf")  # the change must be seen somewhere
    return difference(before[:, :-2], after[:, :-2])


def check_gradients(name: str, implementation: str) -> float:
    """Gradients reach everything that is trained and nothing else: 0, or infinity."""
    model = with_prefixes(name, implementation)
    model.train()
    model(**batch_of(model)).logits.float().pow(2).sum().backward()
    for parameter in model.parameters():
        reached = parameter.grad is not None and parameter.grad.abs().sum().item() > 0
        if reached != parameter.requires_grad:
            return float("inf")
    return 0.0


def check_saving(name: str, implementation: str) -> float:
    """Saved and loaded onto a fresh backbone."""
    model = with_prefixes(name, implementation)
    batch = batch_of(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = AptModel.from_pretrained(folder, build(name, implementation)).eval()
    return difference(logits(model, batch), logits(again, batch))


CHECKS: dict[str, Callable[[str, str], float | None]] = {
    "lengths 0 = backbone": check_zero_lengths,
    "= eager": check_against_eager,
    "padded = alone": check_padding,
    "cached = full": check_cache,
    "no leak": check_causality,
    "gradients": check_gradients,
    "save, load": check_saving,
}


def main() -> None:
    """Runs every check and writes the table and its numbers."""
    root = Path(__file__).parent
    numbers: dict[str, dict[str, dict[str, float | str | None]]] = {}
    for name in ARCHITECTURES:
        for implementation in ("own",) if name == "DeBERTa-v2" else IMPLEMENTATIONS:
            row: dict[str, float | str | None] = {}
            for check, measure in CHECKS.items():
                row[check] = _measured(measure, name, implementation)
            numbers.setdefault(name, {})[implementation] = row
            print(name, implementation, row, file=sys.stderr)
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "architectures.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (root.parent / "docs" / "architectures.md").write_text(table(numbers))


def _measured(measure: Callable, name: str, implementation: str) -> float | str | None:
    """The number, or who cannot do it: ourselves, torch on this device, or transformers without any prefix."""
    try:
        return measure(name, implementation)
    except AptError:
        return "refused"
    except (NotImplementedError, ValueError, IndexError, RuntimeError):
        pass
    try:
        model = build(name, implementation)
        if measure is check_gradients:
            for parameter in model.parameters():
                parameter.requires_grad_(True)
            model.train()(**batch_of(model)).logits.sum().backward()
        else:
            logits(model, batch_of(model))
    except (NotImplementedError, ValueError, IndexError, RuntimeError):
        return "not without prefix either"
    return "fails"


def table(numbers: dict[str, dict[str, dict[str, float | str | None]]]) -> str:
    """The table in ``docs/architectures.md``."""
    lines = [
        "# Architectures",
        "",
        "Written by `python -m benchmarks.architectures`, which also says what each check is. Small seeded models,",
        "a prefix of another length in every layer, hidden gates; largest difference of the logits, in their standard",
        f"deviations, on a CPU in float32; the limit is {TOLERANCE:g}, and 0 for the first column and for gradients.",
        "A dash: does not apply to encoders.",
        "*Not without prefix either*: the backbone alone cannot do it with that implementation (torch has no backward",
        "of flex attention on CPUs; transformers has no flex attention for GPT-2, and T5's fails on a padded batch).",
        "",
        "| architecture | attention | " + " | ".join(CHECKS) + " |",
        "|---|---|" + "---|" * len(CHECKS),
    ]
    for name, rows in numbers.items():
        for implementation, row in rows.items():
            cells = " | ".join(map(_cell, row.values()))
            lines.append(f"| {name} | {implementation} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.0e}" if value else "0"


if __name__ == "__main__":
    main()
