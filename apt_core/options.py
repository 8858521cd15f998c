"""The options that the commands share, and from what was typed to validated settings. Loads no torch."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import typer

from apt_core.config import Settings, parse_prefix_lengths, parse_steps
from apt_core.errors import bad_value
from apt_core.tasks.source import PLACES

S = TypeVar("S", bound=Settings)

Measure = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        help="after training, measure what the virtual tokens are worth (about an epoch more), see 'measure'",
    ),
]
MemoryCheck = Annotated[
    bool,
    typer.Option(
        "--memory-check/--no-memory-check",
        help="before training, run a few examples and refuse a batch that would not fit into memory (about one step)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]

# where the data is
DataDir = Annotated[
    str | None,
    typer.Option(
        help="folder with train, validation and test files, or with a folder of the task's name; built-in tasks need "
        "none"
    ),
]
DatasetName = Annotated[
    str | None, typer.Option(help="instead: a data set of the Hugging Face Hub, or its local folder")
]
DatasetConfigName = Annotated[
    str | None, typer.Option(help="which configuration of --dataset-name [default: the task's, or the only one]")
]
TrainFile = Annotated[
    str | None, typer.Option(help="instead: one file to train on (.csv, .tsv, .jsonl, .json, .parquet, .conll, .txt)")
]
ValidationFile = Annotated[str | None, typer.Option(help="file that chooses the checkpoint [default: a part of train]")]
TestFile = Annotated[str | None, typer.Option(help="file for 'evaluate'; never trained on or chosen by")]

# which columns of it
TextColumn = Annotated[str | None, typer.Option(help="column of the text [default: text]")]
TextPairColumn = Annotated[str | None, typer.Option(help="column of a second text [default: none]")]
LabelColumn = Annotated[str | None, typer.Option(help="column of the class [default: label]")]
TokensColumn = Annotated[
    str | None, typer.Option(help="column of the words; in CoNLL files its number from 0 [default: tokens, or 0]")
]
TagsColumn = Annotated[
    str | None, typer.Option(help="column of the words' tags; in CoNLL files its number, -1: last [default: tags, -1]")
]
TagScheme = Annotated[
    str | None, typer.Option(help="auto (from the training tags), iob1, iob2 or bioes [default: auto]")
]
PromptColumn = Annotated[str | None, typer.Option(help="column of what a language model is given")]
TargetColumn = Annotated[str | None, typer.Option(help="column of what it is to write; the loss is on this only")]
ValidationFraction = Annotated[
    float | None, typer.Option(help="part of train set aside where there is no validation split [default: 0.1]")
]

# what is put on the backbone
NumVirtualTokens = Annotated[int | None, typer.Option(help="virtual tokens in every layer [default: 16]")]
PrefixLengths = Annotated[
    str | None,
    typer.Option(help="virtual tokens per layer instead, such as 4,0,8,8,2,2; 0 leaves a layer as it is"),
]
TokenGate = Annotated[
    str | None,
    typer.Option(help="hidden (from the hidden state), static (one learned value per token) or none [default: hidden]"),
]
GatePooling = Annotated[
    str | None,
    typer.Option(help="which hidden state a hidden gate sees: auto, first, mean or per-position [default: auto]"),
]
LayerScale = Annotated[
    bool | None,
    typer.Option("--layer-scale/--no-layer-scale", help="a learned multiplier of each layer's prefix [default: yes]"),
]
Attention = Annotated[
    str | None,
    typer.Option(help="which attention gets prefixes: encoder, decoder, cross, separated by commas [default: all]"),
]
InitStd = Annotated[
    float | None, typer.Option(help="standard deviation that keys and values start from [default: 1.0]")
]
GateInit = Annotated[float | None, typer.Option(help="what gates start at, between 0 and 1 [default: 0.5]")]
GateInitStd = Annotated[
    float | None, typer.Option(help="standard deviation that the weights of hidden gates start from [default: 0.02]")
]
PrefixProjection = Annotated[
    bool | None,
    typer.Option(
        "--prefix-projection/--no-prefix-projection",
        help="train keys and values through a small network, of which only the result is kept [default: no]",
    ),
]
EncoderHiddenSize = Annotated[int | None, typer.Option(help="width inside that network [default: that of the keys]")]
PrefixDropout = Annotated[
    float | None, typer.Option(help="fraction of keys' and values' entries dropped in training [default: 0]")
]
ShiftPositions = Annotated[
    bool | None,
    typer.Option(
        "--shift-positions/--no-shift-positions",
        help="count virtual tokens as positions, which PEFT does: for export [default: no]",
    ),
]

# how it is trained
Epochs = Annotated[int | None, typer.Option(help="passes over the training split")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="peak learning rate of prefix, gates and head")]
PrefixLearningRate = Annotated[
    float | None, typer.Option("--prefix-lr", help="that of keys and values [default: --lr]")
]
GateLearningRate = Annotated[float | None, typer.Option("--gate-lr", help="that of gates and scales [default: --lr]")]
HeadLearningRate = Annotated[float | None, typer.Option("--head-lr", help="that of the task head [default: --lr]")]
BatchSize = Annotated[int | None, typer.Option(help="examples per forward pass and device")]
GradientAccumulationSteps = Annotated[int | None, typer.Option(help="forward passes per optimizer step")]
Optim = Annotated[str | None, typer.Option(help="optimizer, by the Trainer's name, such as adamw_torch or adafactor")]
WarmupRatio = Annotated[float | None, typer.Option(help="fraction of the steps in which the learning rate rises")]
WeightDecay = Annotated[float | None, typer.Option(help="weight decay")]
BackboneDropout = Annotated[float | None, typer.Option(help="dropout of backbone and head in training")]
MaxLength = Annotated[int | None, typer.Option(help="sub-words per text; longer ones are cut")]
Seed = Annotated[int | None, typer.Option(help="seed of initialisation, data order and dropout")]
Shots = Annotated[int | None, typer.Option(help="training examples per class (in all where there are no classes)")]
Device = Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu or cuda")]
Dtype = Annotated[
    str | None, typer.Option(help="type of the frozen weights: auto (as stored), float32, bfloat16 or float16")
]
Bf16 = Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="compute in bfloat16 where that is safe")]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="less memory for more time"),
]
TorchCompile = Annotated[
    bool | None, typer.Option("--torch-compile/--no-torch-compile", help="compile the model; needs a C++ compiler")
]
SnapshotSteps = Annotated[
    str | None,
    typer.Option(help="steps whose values are kept for rewinding, such as 50,200 [default: a tenth of all steps]"),
]
RecordEvery = Annotated[
    int | None, typer.Option(help="record gates every so many optimizer steps, and at the last [default: 1]")
]
RecordDtype = Annotated[
    str | None, typer.Option(help="store recorded gates as float32 or float16 (half the size) [default: float32]")
]

_PARSED = {
    "prefix_lengths": parse_prefix_lengths,
    "snapshot_steps": parse_steps,
    "attention": lambda text: tuple(part.strip() for part in text.split(",")),
}


def given_settings(context: typer.Context, kind: type[S], defaults: dict[str, Any] | None = None) -> S:
    """The settings of ``kind`` that were typed, over ``defaults``.

    Raises:
        AptValueError: on a value that is not accepted.
    """
    typed = {name: value for name, value in context.params.items() if name in kind.model_fields and value is not None}
    parsed = {name: _PARSED[name](value) if name in _PARSED else value for name, value in typed.items()}
    return kind(**{**(defaults or {}), **parsed})


def typed_names(context: typer.Context) -> set[str]:
    """Names of the parameters that were typed."""
    return {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}


def typed_place(context: typer.Context) -> dict[str, str]:
    """The fields of ``DataSource`` that say where data is, as far as they were typed."""
    return {name: context.params[name] for name in PLACES if context.params.get(name) is not None}


def check_lengths(context: typer.Context) -> None:
    """Refuses both ways of saying how many virtual tokens there are at once.

    Raises:
        AptValueError: if both were typed.
    """
    if context.params.get("num_virtual_tokens") is not None and context.params.get("prefix_lengths") is not None:
        raise bad_value(
            "prefix-lengths", context.params["prefix_lengths"], "either --num-virtual-tokens or --prefix-lengths"
        )
