"""A tokenizer made here: words and letters of a small vocabulary."""

from __future__ import annotations

import string

import pytest
from transformers import BertTokenizerFast

WORDS = ["the", "cat", "sat", "on", "mat", "paris", "visit", "##s", "un", "##related"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BertTokenizerFast:
    letters = list(string.ascii_lowercase + string.punctuation + string.digits)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(vocabulary)))
    return BertTokenizerFast.from_pretrained(str(path.parent), do_lower_case=True)
