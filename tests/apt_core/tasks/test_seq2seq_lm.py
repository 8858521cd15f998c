"""Sequence-to-sequence tasks on small T5 and BART and a word-level tokenizer; transformers' losses as oracles."""

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
from apt_core.tasks.seq2seq_lm import Seq2SeqLM
from benchmarks.small_backbones import VOCABULARY, build, with_prefixes

PAD, EOS = 0, 2
BACKBONES = ("T5", "BART")


def make_tokenizer(*, eos: bool = True, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Words w4 to w63, which are sub-words 4 to 63; an end token after each text, as T5's."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{index}" for index in range(4, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if eos:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side=padding_side,
    )


def words(*indices: int) -> str:
    return " ".join(f"w{index}" for index in indices)


def task_of(*pairs: tuple[str, str]) -> TaskData:
    rows = [{"id": f"row-{n}", "prompt": prompt, "target": target} for n, (prompt, target) in enumerate(pairs)]
    return TaskData("made", "seq2seq-lm", (), {"train": rows, "validation": rows})


@pytest.fixture
def task() -> TaskData:
    return task_of(
        (words(10, 11, 12, 13, 14), words(20, 21)),
        (words(15), words(22, 23, 24, 25, 26, 27)),
        (words(19), words(28, 29, 30)),
        (words(16, 17), words(31)),
        (words(18), words(32, 33)),
    )


def encoded(task: TaskData, tokenizer: PreTrainedTokenizerFast, max_length: int = 32) -> list[dict]:
    rows = Seq2SeqLM().encode(task, "validation", tokenizer, max_length)
    return [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows]


def alone(model, row: dict) -> tuple[list[float], int]:
    """Loss of every target sub-word by hand, the decoder's input written out, and how many are ranked first."""
    before = [model.config.decoder_start_token_id, *row["labels"][:-1]]
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([row["input_ids"]]), decoder_input_ids=torch.tensor([before]))
    log_probabilities = output.logits[0].log_softmax(dim=-1)
    losses = [-log_probabilities[t, label].item() for t, label in enumerate(row["labels"])]
    return losses, sum(log_probabilities[t].argmax().item() == label for t, label in enumerate(row["labels"]))


def test_prompt_and_target_are_cut_apart_with_their_end_tokens():
    task = task_of((words(5, 6, 7, 8, 9), words(10, 11)), (words(5), words(10, 11, 12, 13)))
    rows = Seq2SeqLM().encode(task, "train", make_tokenizer(), 4)
    assert rows["input_ids"][:] == [[5, 6, 7, EOS], [5, EOS]]
    assert rows["labels"][:] == [[10, 11, EOS], [10, 11, 12, EOS]]
    assert rows["length"][:] == [4, 2]
    assert set(rows.column_names) == {"input_ids", "attention_mask", "labels", "length"}


def test_encode_without_any_target_raises():
    with pytest.raises(AptError, match="validation split of task made has no target sub-word"):
        encoded(task_of((words(5), "")), make_tokenizer(eos=False))


@pytest.mark.parametrize("side", ["right", "left"])
def test_collator_pads_inputs_and_labels_on_the_right(side):
    tokenizer = make_tokenizer(padding_side=side)
    batch = Seq2SeqLM().collator(tokenizer)(
        encoded(task_of((words(5, 6), words(7)), (words(8), words(9, 10))), tokenizer)
    )
    assert batch["input_ids"].tolist() == [[5, 6, EOS], [8, EOS, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[7, EOS, -100], [9, 10, EOS]]
    assert tokenizer.padding_side == side


@pytest.mark.parametrize("make", [build, with_prefixes], ids=["bare", "prefixes"])
@pytest.mark.parametrize("name", BACKBONES)
def test_losses_equal_the_models_own_and_do_not_depend_on_padding(name, make, task):
    model, family, tokenizer = make(name), Seq2SeqLM(), make_tokenizer()
    rows = encoded(task, tokenizer)
    batch = family.collator(tokenizer)(rows)
    with torch.inference_mode():
        output = model(**batch)
        reduced = family.reduce((output.logits, output.encoder_last_hidden_state), batch["labels"])
        own = [model(**family.collator(tokenizer)([row])).loss.item() for row in rows]
    assert reduced.shape == (*batch["labels"].shape, 2)
    assert family.losses(reduced, batch["labels"]).tolist() == pytest.approx(own, abs=1e-5)
    assert family.losses(reduced, batch["labels"]).tolist() == pytest.approx(
        [np.mean(alone(model, r)[0]) for r in rows], abs=1e-5
    )
    counted = (batch["labels"] != -100).sum().item()
    assert reduced[..., 0].sum().item() / counted == pytest.approx(output.loss.item(), abs=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_trainer_with_batches_of_different_length_gives_perplexity_by_hand(name, task, tmp_path):
    model, family, tokenizer = with_prefixes(name), Seq2SeqLM(), make_tokenizer()
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
    assert kept[0].shape == (5, 7, 2)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert metrics["eval_token_accuracy"] == pytest.approx(sum(right for _, right in by_hand) / len(losses))


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", BACKBONES)
def test_evaluate_weighs_tokens_and_keeps_counts_without_text(name, token_gate, task):
    model, tokenizer = with_prefixes(name, token_gate=token_gate), make_tokenizer()
    result = evaluate(model, task, "validation", tokenizer, batch_size=2, max_length=32, progress=False)
    by_hand = [alone(model, row) for row in encoded(task, tokenizer)]
    losses = [loss for row, _ in by_hand for loss in row]
    assert result.metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))
    assert result.metrics["token_accuracy"] == pytest.approx(sum(right for _, right in by_hand) / len(losses))
    for number, (row, (own, right)) in enumerate(zip(result.predictions, by_hand, strict=True)):
        row.pop("layer_gates")
        loss = pytest.approx(np.mean(own), abs=1e-5)
        assert row == {"id": f"row-{number}", "tokens": len(own), "right": right, "loss": loss}


@pytest.mark.parametrize("name", BACKBONES)
def test_evaluate_gives_every_example_the_gates_it_has_alone(name, task):
    """Encoder, decoder and cross-attention layers; gates of the last two differ per position of the target."""
    model, tokenizer = with_prefixes(name), make_tokenizer()
    settings = {"max_length": 32, "progress": False}
    together = evaluate(model, task, "validation", tokenizer, batch_size=5, **settings).predictions
    apart = evaluate(model, task, "validation", tokenizer, batch_size=1, **settings).predictions
    for row, single in zip(together, apart, strict=True):
        assert len(row["layer_gates"]) == len(model.prefixes) == 6
        for gate, alone_gate, prefix in zip(row["layer_gates"], single["layer_gates"], model.prefixes, strict=True):
            assert (gate is None) == (prefix is None)
            assert gate is None or gate == pytest.approx(alone_gate, abs=2e-6)
    assert len({row["layer_gates"][2] for row in together}) == 5


def test_the_best_perplexity_is_the_lowest(task):
    family = family_of(task)
    assert (family.metric_name, family.greater_is_better) == ("perplexity", False)
