"""The README.md of an adapter on the Hugging Face Hub: what it is, how good, how made and what its gates look like.

Nothing in it names a machine or a folder: local paths are left out or cut to their last name.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from apt_core.gate_profile import GateProfile, gate_profile
from apt_core.hub import is_hub_model
from apt_core.markdown import code_block, last_name, one_line, plain, public_command, table
from apt_core.run_format import RunInfo, read_run_info
from apt_core.secrets import redact

if TYPE_CHECKING:
    from apt_core.model import AptModel

PAPER_URL = "https://arxiv.org/abs/2305.15212"
TAGS = ("adapter", "prefix-tuning", "adaptive-prefix-tuning")
LIBRARY = "apt-gate-studio"
_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
}
_NOT_SHOWN = {"prefix_lengths", "kept_tokens", "num_virtual_tokens"}
_GATES_TELL = (
    "Gates can tell how strongly each layer weighs its prefix in this model: near 0, the keys and values that "
    "attention sees are near zero. They cannot tell how much a layer matters for the task: keys and values have "
    "learned sizes of their own, other seeds give other gates, and what removing virtual tokens costs has to be "
    "measured by training again with fewer."
)
_CITATION = """@inproceedings{zhang-etal-2023-towards,
  title = {Towards Adaptive Prefix Tuning for Parameter-Efficient Language Model Fine-tuning},
  author = {Zhang, Zhen-Ru and Tan, Chuanqi and Xu, Haiyang and Wang, Chengyu and Huang, Jun and Huang, Songfang},
  booktitle = {Proceedings of the 61st Annual Meeting of the Association for Computational Linguistics},
  volume = {2: Short Papers},
  pages = {1239--1248},
  year = {2023},
  url = {https://arxiv.org/abs/2305.15212}
}"""


def model_card(model: AptModel, run: Path | None = None, repo_id: str | None = None) -> ModelCard:
    """The card of an adapter, with metadata that the Hub can read.

    Args:
        model: from ``get_apt_model``, as trained.
        run: its run folder, for results, settings and recorded gates; None: only what the model itself says.
        repo_id: where it will be, for the example; None: ``user/name``.

    Raises:
        AptError: if ``run`` is no run folder, or its files are damaged.
    """
    info = read_run_info(run) if run is not None else None
    repo_id = repo_id or "user/name"
    sections = [
        f"# {plain(repo_id.rpartition('/')[2])}",
        _summary(model, info),
        "## Use",
        code_block(_example(model, repo_id), "python"),
        *(["## Results", _results(info)] if info else []),
        "## Prefix",
        _prefix(model, gate_profile(model, run, info)),
        "## Parameters",
        _parameters(model),
        *(["## Training", _training(model, info)] if info else []),
        "## Versions",
        _versions(info),
        "## Citation",
        code_block(_CITATION, "bibtex"),
    ]
    content = f"---\n{_metadata(model, info, repo_id).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    return ModelCard(redact(content))


def pipeline_tag(model: AptModel) -> str | None:
    """The Hub's name for what the head does; None where it has none."""
    return next((tag for ending, tag in _PIPELINES.items() if type(model).__name__.endswith(ending)), None)


def _metadata(model: AptModel, info: RunInfo | None, repo_id: str) -> ModelCardData:
    data = ModelCardData(
        base_model=model.hub_base_model, library_name=LIBRARY, tags=list(TAGS), pipeline_tag=pipeline_tag(model)
    )
    dataset = info.data.get("dataset_name") if info else None
    if isinstance(dataset, str) and is_hub_model(dataset):
        data.datasets = [dataset]
    else:
        dataset = one_line(info.task) or "unnamed" if info else None
    if data.base_model:
        data["base_model_relation"] = "adapter"
    results = [
        EvalResult(
            task_type=data.pipeline_tag or "other",
            dataset_type=dataset,
            dataset_name=one_line(info.task) or "unnamed",
            dataset_split=one_line(split),
            metric_type=one_line(name),
            metric_value=value,
        )
        for split, metrics in (info.metrics if info else {}).items()
        for name, value in metrics.items()
        if name != "loss" and math.isfinite(value)
    ]
    if results:
        data.model_name, data.eval_results = repo_id.rpartition("/")[2], results
        data.metrics = sorted({result.metric_type for result in results})
    return data


def _summary(model: AptModel, info: RunInfo | None) -> str:
    name, head = model.hub_base_model, plain(type(model).__name__)
    if name:
        base = f"[{plain(name)}](https://huggingface.co/{name}) ({head})"
    else:
        local = last_name(model.config.name_or_path)
        base = f"a {head} that is not on the Hub" + (f", {plain(local)}" if local else "")
    lengths = model.apt_config.prefix_lengths
    lines = [
        f"Adaptive prefix tuning ([Zhang et al., 2023]({PAPER_URL})) of {base}, made with {LIBRARY}. The backbone is "
        f"frozen and not part of this repository; what is trained is {sum(lengths)} virtual tokens over "
        f"{len(lengths)} layers, their gates and the task head."
    ]
    if info and info.task:
        labels = ", ".join(map(plain, info.labels))
        lines.append(
            f"Task: {plain(info.task)}" + (f", with the labels {labels}" if labels else "") + "."
            + (f" Data: SHA-256 {plain(info.data_hash[:12])}." if info.data_hash else "")
        )  # fmt: skip
    return "\n\n".join(lines)


def _example(model: AptModel, repo_id: str) -> str:
    name, head = model.hub_base_model, type(model).__name__
    classifies = head.endswith(("ForSequenceClassification", "ForTokenClassification"))
    lines = [
        f"from transformers import AutoTokenizer{'' if name else ', ' + head}",
        "",
        "from apt_core import AptModel",
    ]
    if name:
        lines += ["", f"model = AptModel.from_pretrained({json.dumps(repo_id)}).eval()"]
    else:
        name = last_name(model.config.name_or_path) or "backbone"
        labels = f", id2label={dict(model.config.id2label)!r}" if classifies else ""
        lines += [
            "",
            f"backbone = {head}.from_pretrained({json.dumps(name)}{labels})  # the folder with the backbone",
            f"model = AptModel.from_pretrained({json.dumps(repo_id)}, backbone).eval()",
        ]
    lines += [f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(name)})"]
    inputs = 'inputs = tokenizer("A text of your own", return_tensors="pt")'
    if classifies:
        lines += [inputs, "best = model(**inputs).logits.argmax(-1).flatten().tolist()"]
        lines += ["print([model.config.id2label[index] for index in best])"]
    elif pipeline_tag(model) == "text-generation":
        lines += [inputs, "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))"]
    return "\n".join(lines)


def _results(info: RunInfo) -> str:
    rows = [
        (plain(split), str(info.split_sizes.get(split, "not recorded")), plain(name), f"{value:.4g}")
        for split, metrics in info.metrics.items()
        for name, value in metrics.items()
    ]
    return (
        table(("split", "examples", "metric", "value"), rows)
        + f"\n\nOne training run with one seed ({info.seed}): a difference to another model that is no larger than "
        "that between seeds says nothing."
        + (f" The checkpoint was chosen by {plain(info.metric_name)} on validation." if info.metric_name else "")
    )


def _prefix(model: AptModel, profile: GateProfile) -> str:
    config = model.apt_config
    names = [("layer", profile.layers), ("virtual tokens", [str(length) for length in config.prefix_lengths])]
    if config.kept_tokens is not None:
        names.append(("kept of the unpruned prefix", [" ".join(map(str, kept)) for kept in config.kept_tokens]))
    names += profile.columns()
    text = table([name for name, _ in names], list(zip(*(cells for _, cells in names), strict=True)))
    if not profile.has_gates:
        return text + "\n\nIt has no gates."
    return f"{text}\n\nweight = mean token gate x abs(layer scale), {profile.source}. {_GATES_TELL}"


def _parameters(model: AptModel) -> str:
    counts = model.count_parameters()
    total = sum(counts.values())
    trained = total - counts["frozen"]
    rows = [(part.replace("_", " "), f"{count:,}") for part, count in counts.items()]
    return (
        table(("part", "parameters"), rows)
        + f"\n\nTrained: {trained:,} of {total:,} ({100 * trained / max(1, total):.2g} %)."
    )


def _training(model: AptModel, info: RunInfo) -> str:
    settings = {**model.apt_config.model_dump(exclude_defaults=True, exclude=_NOT_SHOWN), **info.training}
    settings |= {"init": info.init, "num_processes": info.num_processes, "steps": info.total_steps}
    settings |= {"best_step": info.best_step, "seconds": round(info.seconds), "device": info.device}
    rows = [(plain(name), plain(_shown(value))) for name, value in settings.items() if value not in (None, "")]
    command = public_command(info.command)
    return table(("setting", "value"), rows) + (
        f"\n\nMade by this command, local paths cut to their last name:\n\n{code_block(command, 'sh')}"
        if command
        else ""
    )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _versions(info: RunInfo | None) -> str:
    versions = {} if info is None else dict(info.versions)
    for package in (LIBRARY, "torch", "transformers"):
        try:
            versions.setdefault(package, version(package))
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return ", ".join(f"{plain(name)} {plain(number)}" for name, number in versions.items())
