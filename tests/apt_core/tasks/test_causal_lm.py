"""Causal language modelling on small decoders and a word-level tokenizer; transformers' own losses as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from apt_core.errors import AptError
from apt_core.evaluate import evaluate
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData
from apt_core.tasks.causal_lm import CausalLM
from benchmarks.small_backbones import VOCABULARY, build, with_prefixes

PAD, BOS, EOS = 0, 1, 2
BACKBONES = ("GPT-2", "Llama")


def make_tokenizer(*, bos: bool = True, eos: bool = True, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Words w4 to w63, which are sub-words 4 to 63."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{index}" for index in range(4, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>" if eos else None,
        unk_token="<unk>",
        padding_side=padding_side,
    )


def words(*indices: int) -> str:
    return " ".join(f"w{index}" for index in indices)


def task_of(*pairs: tuple[str, str]) -> TaskData:
    rows = [{"id": f"row-{n}", "prompt": prompt, "target": target} for n, (prompt, target) in enumerate(pairs)]
    return TaskData("made", "causal-lm", (), {"train": rows, "validation": rows})


@pytest.fixture
def task() -> TaskData:
    return task_of(
        (words(10, 11, 12, 13, 14), words(20, 21)),
        (words(15), words(22, 23, 24, 25, 26, 27)),
        ("", words(28, 29, 30)),
        (words(16, 17), words(31)),
        (words(18), words(32, 33)),
    )


def encoded(task: TaskData, tokenizer: PreTrainedTokenizerFast, max_length: int = 32) -> list[dict]:
    rows = CausalLM().encode(task, "validation", tokenizer, max_length)
    return [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows]


def alone(model, row: dict) -> tuple[list[float], int]:
    """Loss of every target sub-word by hand, one at a time, and how many are ranked first."""
    with torch.inference_mode():
        log_probabilities = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(dim=-1)
    targets = [(t, label) for t, label in enumerate(row["labels"]) if label != -100]
    losses = [-log_probabilities[t - 1, label].item() for t, label in targets]
    return losses, sum(log_probabilities[t - 1].argmax().item() == label for t, label in targets)


@pytest.mark.parametrize(
    ("bos", "eos", "input_ids", "labels"),
    [
        (True, True, [BOS, 5, 6, 7, 8, EOS], [-100, -100, -100, 7, 8, EOS]),
        (True, False, [BOS, 5, 6, 7, 8], [-100, -100, -100, 7, 8]),
        (False, True, [5, 6, 7, 8, EOS], [-100, -100, 7, 8, EOS]),
        (False, False, [5, 6, 7, 8], [-100, -100, 7, 8]),
    ],
)
def test_labels_are_on_target_and_end_only(bos, eos, input_ids, labels):
    (row,) = encoded(task_of((words(5, 6), words(7, 8))), make_tokenizer(bos=bos, eos=eos))
    assert row == {"input_ids": input_ids, "attention_mask": [1] * len(input_ids), "labels": labels}


def test_empty_prompt_makes_everything_target_but_what_nothing_predicts():
    task = task_of(("", words(7, 8)))
    assert encoded(task, make_tokenizer())[0]["labels"] == [-100, 7, 8, EOS]
    assert encoded(task, make_tokenizer(bos=False))[0]["labels"] == [-100, 8, EOS]


@pytest.mark.parametrize(
    ("max_length", "input_ids", "labels"),
    [
        (8, [BOS, 5, 6, 7, 8, 9, 10, EOS], [-100] * 4 + [8, 9, 10, EOS]),
        (7, [BOS, 6, 7, 8, 9, 10, EOS], [-100] * 3 + [8, 9, 10, EOS]),
        (5, [BOS, 8, 9, 10, EOS], [-100, 8, 9, 10, EOS]),
        (4, [BOS, 8, 9, 10], [-100, 8, 9, 10]),
        (3, [BOS, 8, 9], [-100, 8, 9]),
    ],
)
def test_too_long_texts_lose_the_beginning_of_the_prompt_then_the_end_of_the_target(max_length, input_ids, labels):
    task = task_of((words(5, 6, 7), words(8, 9, 10)))
    row = CausalLM().encode(task, "train", make_tokenizer(), max_length)[0]
    assert (row["input_ids"], row["labels"], row["length"]) == (input_ids, labels, len(input_ids))


def test_encode_without_anything_to_predict_raises():
    with pytest.raises(AptError, match="validation split of task made has no target sub-word with something before"):
        encoded(task_of(("", words(7)), (words(7), "")), make_tokenizer(bos=False, eos=False))


@pytest.mark.parametrize("side", ["right", "left"])
def test_collator_pads_on_the_right_and_leaves_the_tokenizer_alone(side):
    tokenizer = make_tokenizer(padding_side=side)
    rows = encoded(task_of((words(5), words(6, 7)), (words(8), words(9))), tokenizer)
    batch = CausalLM().collator(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[BOS, 5, 6, 7, EOS], [BOS, 8, 9, EOS, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 7, EOS], [-100, -100, 9, EOS, -100]]
    assert tokenizer.padding_side == side


def test_end_token_used_as_padding_keeps_its_label():
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    batch = CausalLM().collator(tokenizer)(encoded(task_of((words(5), words(6, 7)), (words(8), words(9))), tokenizer))
    assert batch["labels"].tolist()[1] == [-100, -100, 9, EOS, -100]
    assert batch["attention_mask"].tolist()[1] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("make", [build, with_prefixes], ids=["bare", "prefixes"])
@pytest.mark.parametrize("name", BACKBONES)
def test_losses_equal_the_models_own_and_do_not_depend_on_padding(name, make, task):
    model, family, tokenizer = make(name), CausalLM(), make_tokenizer()
    rows = encoded(task, tokenizer)
    batch = family.collator(tokenizer)(rows)
    with torch.inference_mode():
        output = model(**batch)
        reduced = family.reduce(output.logits, batch["labels"])
        own = [model(**family.collator(tokenizer)([row])).loss.item() for row in rows]
    assert reduced.shape == (*batch["labels"].shape, 2)
    assert reduced.dtype == torch.float32
    assert (reduced[batch["labels"] == -100] == 0).all()
    assert family.losses(reduced, batch["labels"]).tolist() == pytest.approx(own, abs=1e-5)
    counted = (batch["labels"] != -100).sum().item()
    assert reduced[..., 0].sum().item() / counted == pytest.approx(output.loss.item(), abs=1e-5)


def test_a_label_on_the_first_position_counts_nowhere():
    family = CausalLM()
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 4, 8), torch.tensor([[3, 4, 5, -100]])
    reduced = family.reduce((logits, "encoder states"), labels)
    assert reduced[0, 0].tolist() == [0, 0]
    (counts,) = family.predictions(task_of(("", "")), "train", reduced.numpy(), labels.numpy())
    assert counts.tokens == 2
    assert family.losses(reduced, labels).tolist() == [pytest.approx(counts.loss / 2)]


@pytest.mark.parametrize("make", [build, with_prefixes], ids=["bare", "prefixes"])
def test_trainer_with_batches_of_different_length_gives_perplexity_by_hand(make, task, tmp_path):
    model, family, tokenizer = make("GPT-2"), CausalLM(), make_tokenizer()
    kept = []

    def compute_metrics(result):
        kept.append(result.predictions)
        predicted = family.predictions(task, "validation", result.predictions, result.label_ids)
        return family.score(task, "validation", predicted)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, use_cpu=True, report_to="none"),
        eval_dataset=family.encode(task, "validation", tokenizer, 32).remove_columns("length"),
        data_collator=family.collator(tokenizer),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=family.reduce,
    )
    metrics = trainer.evaluate()
    by_hand = [alone(model, row) for row in encoded(task, tokenizer)]
    losses = [loss for row, _ in by_hand for loss in row]
    assert (kept[0] == -100).any()  # the Trainer's filler, where a batch was shorter than another
    assert kept[0].shape == (5, 9, 2)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert metrics["eval_token_accuracy"] == pytest.approx(sum(right for _, right in by_hand) / len(losses))


@pytest.mark.parametrize("name", BACKBONES)
def test_evaluate_weighs_tokens_and_keeps_counts_without_text(name, task):
    model, tokenizer = with_prefixes(name), make_tokenizer()
    result = evaluate(model, task, "validation", tokenizer, batch_size=2, max_length=32, progress=False)
    by_hand = [alone(model, row) for row in encoded(task, tokenizer)]
    losses = [loss for row, _ in by_hand for loss in row]
    assert result.metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))
    assert result.metrics["token_accuracy"] == pytest.approx(sum(right for _, right in by_hand) / len(losses))
    for number, (row, (own, right)) in enumerate(zip(result.predictions, by_hand, strict=True)):
        gates = row.pop("layer_gates")
        assert gates[1] is None
        assert all(0 < gates[layer] < 1 for layer in (0, 2))
        loss = pytest.approx(np.mean(own), abs=1e-5)
        assert row == {"id": f"row-{number}", "tokens": len(own), "right": right, "loss": loss}


def test_evaluate_reports_no_loss_for_an_example_without_target():
    task = task_of((words(5, 6), ""), (words(5), words(7)))
    tokenizer = make_tokenizer(eos=False)
    result = evaluate(with_prefixes("GPT-2"), task, "train", tokenizer, batch_size=2, max_length=32, progress=False)
    assert (result.predictions[0]["tokens"], result.predictions[0]["loss"]) == (0, None)
    assert result.metrics["loss"] == pytest.approx(result.predictions[1]["loss"], abs=1e-5)


def test_the_best_perplexity_is_the_lowest(task):
    family = family_of(task)
    assert (family.metric_name, family.greater_is_better) == ("perplexity", False)
