"""What the speed benchmark measures: models, ways of running them and prefix lengths. A cell is one of each."""

from __future__ import annotations

from typing import Literal, NamedTuple

Mode = Literal["training", "training without dropout", "inference", "decoding"]

PREFIX_LENGTHS = (20, 100)
"""virtual tokens in every layer"""
CACHE = 2048
"""positions that are cached before a token is decoded"""


class Size(NamedTuple):
    """A backbone, made from its config with random values: speed does not depend on them."""

    config: str
    settings: dict[str, int]
    modes: tuple[Mode, ...]
    batch: int
    length: int  # sub-words of every sequence

    @property
    def num_layers(self) -> int:
        """L."""
        return self.settings["num_hidden_layers"]

    @property
    def is_decoder(self) -> bool:
        """Whether it is a causal language model."""
        return self.config == "LlamaConfig"


ENCODER_MODES: tuple[Mode, ...] = ("training", "training without dropout", "inference")
SIZES = {
    "MiniLM": Size(
        "BertConfig",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        ENCODER_MODES,
        batch=16,
        length=128,
    ),
    "BERT-base": Size(
        "BertConfig",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        ENCODER_MODES,
        batch=4,
        length=512,
    ),
    "small Llama": Size(
        "LlamaConfig",
        {
            "vocab_size": 8192,
            "hidden_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 1408,
            "max_position_embeddings": 4096,
        },
        ("training", "decoding"),
        batch=4,
        length=256,
    ),
}
"""by name"""


class Cell(NamedTuple):
    """One comparison."""

    model: str
    mode: Mode
    num_virtual_tokens: int

    @property
    def key(self) -> str:
        """Its name in the results and for ``--cells``."""
        return f"{self.model}, {self.mode}, l = {self.num_virtual_tokens}"

    @property
    def size(self) -> Size:
        """Of its backbone."""
        return SIZES[self.model]

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences, and sub-words of each that one run computes."""
        return (1, 1) if self.mode == "decoding" else (self.size.batch, self.size.length)


CELLS = {
    cell.key: cell
    for name, size in SIZES.items()
    for mode in size.modes
    for cell in (Cell(name, mode, length) for length in PREFIX_LENGTHS)
}
