"""From a job to the model that it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from apt_core.backbones import load_backbone, pad_as, set_dropout
from apt_core.errors import bad_value
from apt_core.model import AptModel, get_apt_model
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData

if TYPE_CHECKING:
    from apt_core.train import TrainJob


def build_model(
    job: TrainJob, task: TaskData, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]
) -> AptModel:
    """The frozen backbone with the task's head and prefixes, fresh or as ``job.start`` has them.

    What the checkpoint did not hold (the head; a pooler of a masked-language checkpoint) is trained and saved too.

    Raises:
        AptError: if the backbone cannot be loaded, does not suit the task, or prefixes cannot be put on it.
    """
    settings = job.training
    backbone = load_backbone(job.model, family_of(task).auto_class, dtype=settings.dtype, **_head_settings(task))
    if settings.backbone_dropout is not None:
        set_dropout(backbone.model, settings.backbone_dropout)
    if backbone.model.dtype == torch.float16:
        say(
            "note: the backbone's weights are float16: gradients that pass through them are not scaled, and may vanish "
            "or overflow; --dtype float32 or bfloat16 is safer"
        )
    config = job.apt
    if config.modules_to_save is None and backbone.fresh_modules:
        config = config.model_copy(update={"modules_to_save": backbone.fresh_modules})
    model = job.start.build(backbone.model, config, say) if job.start else get_apt_model(backbone.model, config)
    pad_as(model, tokenizer)
    if task.family == "causal-lm" and not model.is_decoder_only:
        raise bad_value(
            "model",
            job.model,
            "a causal language model, such as GPT-2 or Llama",
            "This one shows every position the words that come after it.",
        )
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise bad_value("gradient_checkpointing", True, f"False, because {type(model).__name__} cannot do it")
    return model


def _head_settings(task: TaskData) -> dict[str, Any]:
    if not task.labels:
        return {}
    return {"id2label": dict(enumerate(task.labels)), "label2id": {label: i for i, label in enumerate(task.labels)}}
