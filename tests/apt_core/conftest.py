"""Small seeded backbones, made from configs: nothing is downloaded."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast, PreTrainedModel

from apt_core.config import AptConfig, TrainSettings
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob

NUM_LAYERS = 3
VOCABULARY = 99
WORDS = ["rain", "tree", "river", "stone", "cloud", "light", "house", "door", "window", "garden", "road", "field"]


def tiny_bert(seed: int = 0, model_class: type[PreTrainedModel] = BertForSequenceClassification) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=3,
    )
    return model_class(config).eval()


@pytest.fixture
def make_backbone() -> Callable[..., PreTrainedModel]:
    return tiny_bert


@pytest.fixture
def backbone() -> PreTrainedModel:
    return tiny_bert()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two sequences of 9 and 6 sub-words, the second padded."""
    torch.manual_seed(1)
    input_ids = torch.randint(1, VOCABULARY, (2, 9))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = 0
    return {"input_ids": input_ids * attention_mask, "attention_mask": attention_mask}


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory) -> Path:
    """A tiny seeded BERT with a tokenizer, saved as a user would bring one."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *WORDS, ".", "?"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast.from_pretrained(str(folder), model_max_length=64).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """COPA in small: 40 training, 12 validation and 12 test examples, and WNUT17 in small."""
    root = tmp_path_factory.mktemp("data")
    draw = random.Random(0)
    for split, size in (("train", 40), ("validation", 12), ("test", 12)):
        rows = [
            {
                "premise": " ".join(draw.choices(WORDS, k=draw.randint(3, 9))),
                "choice1": draw.choice(WORDS),
                "choice2": draw.choice(WORDS),
                "question": draw.choice(["cause", "effect"]),
                "label": draw.randint(0, 1),
                "idx": index,
            }
            for index in range(size)
        ]
        (root / "copa").mkdir(exist_ok=True)
        (root / "copa" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = []
        for _ in range(size):
            words = draw.choices(WORDS, k=draw.randint(2, 8))
            lines += [f"{word}\t{'B-x' if word in ('tree', 'river') else 'O'}" for word in words] + [""]
        (root / "wnut17").mkdir(exist_ok=True)
        (root / "wnut17" / f"{split}.conll").write_text("\n".join(lines))
    return root


@pytest.fixture
def job(backbone_folder, data_folder, tmp_path) -> TrainJob:
    """A small training that takes a second or two."""
    return TrainJob(
        task="copa",
        out=tmp_path / "run",
        model=str(backbone_folder),
        apt=AptConfig(num_virtual_tokens=4),
        training=TrainSettings(epochs=2, batch_size=8, device="cpu"),
        data=DataSource(data_dir=str(data_folder)),
    )
