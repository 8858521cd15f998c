"""Puts prefixes on a backbone and freezes the rest; counts, saves and loads what is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from apt_core.attention import attach, detach, prefix_of
from apt_core.backbones import load_backbone
from apt_core.config import AptConfig
from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import write_atomic
from apt_core.head import head_modules, train_modules
from apt_core.hub import download_adapter, is_repo_id
from apt_core.hub_mixin import CARD_FILE, PUSH_OPTIONS, HubMixin
from apt_core.positions import shift_positions
from apt_core.prefix import LayerPrefix, LayerShape
from apt_core.sites import Kind, chosen_sites, find_sites, pooling_of

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PARTS = ("prefix", "token_gate", "layer_scale", "head", "frozen")


class AptModel(HubMixin):
    """What ``get_apt_model`` adds to a transformers model; the model stays of its own class as well.

    Attributes:
        apt_config: the settings, with ``prefix_lengths`` filled in.
    """

    apt_config: AptConfig
    _apt_sites: tuple[str, ...]
    _apt_kinds: tuple[Kind, ...]
    _apt_shapes: tuple[LayerShape, ...]

    @property
    def prefixes(self) -> list[LayerPrefix | None]:
        """The prefix of every layer (L entries); None where the length is 0."""
        return [prefix_of(self.get_submodule(name)) for name in self._apt_sites]

    @property
    def is_decoder_only(self) -> bool:
        """Whether all its attention is causal self-attention."""
        return set(self._apt_kinds) == {"decoder"} and not self.config.is_encoder_decoder

    def trained_state_dict(self) -> dict[str, Tensor]:
        """What is trained, and with it exactly what is saved: prefix, gates and head."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def count_parameters(self) -> dict[str, int]:
        """Parameters by part: prefix, token_gate, layer_scale, head, frozen. Their sum is the whole model."""
        counts = dict.fromkeys(PARTS, 0)
        for name, parameter in self.named_parameters():
            counts[part_of(name, parameter)] += parameter.numel()
        return counts

    def prune(self, prefix_lengths: Sequence[int], token_gate: np.ndarray | None = None) -> tuple[tuple[int, ...], ...]:
        """Keeps, in every layer, the virtual tokens with the largest gate; a layer of 0 loses its prefix.

        Args:
            prefix_lengths: virtual tokens to keep per layer (L integers), at most what the layer has.
            token_gate: mean gates [L, P] to choose by, such as a run's last recorded ones; needed for hidden gates,
                whose values depend on the input. Without it: static gates themselves, or the first tokens where
                there are no gates.

        Returns:
            The indices kept, per layer, in their order; also noted in ``apt_config.kept_tokens``.

        Raises:
            AptValueError: if a length does not fit, or gates are needed and not given.
        """
        prefixes = self.prefixes
        now = [0 if prefix is None else prefix.num_virtual_tokens for prefix in prefixes]
        if len(prefix_lengths) != len(now) or any(
            not 0 <= new <= old for new, old in zip(prefix_lengths, now, strict=True)
        ):
            raise bad_value("prefix_lengths", list(prefix_lengths), f"{len(now)} integers, each at most that of {now}")
        if self.apt_config.shift_positions and len(set(prefix_lengths)) != 1:
            raise bad_value(
                "prefix_lengths",
                list(prefix_lengths),
                "equal lengths, because shift_positions counts them as positions",
            )
        if self.apt_config.token_gate == "hidden" and token_gate is None:
            raise AptValueError(
                "token_gate: got None; accepted: mean gates [L, P] for a model with hidden gates. Take a recorded step "
                "of the run, GateLog(run / 'gates').at(step).token_gate."
            )
        before = self.apt_config.kept_tokens or tuple(tuple(range(length)) for length in now)
        kept = []
        for layer, (prefix, length) in enumerate(zip(prefixes, prefix_lengths, strict=True)):
            if prefix is None or length == 0:
                kept.append(())
                if prefix is not None:
                    detach(self.get_submodule(self._apt_sites[layer]))
                continue
            gate = _gate_of(prefix) if token_gate is None else np.asarray(token_gate)[layer, : now[layer]]
            chosen = sorted(np.argsort(-gate, kind="stable")[:length].tolist())
            prefix.keep(chosen)
            kept.append(tuple(before[layer][index] for index in chosen))
        self.apt_config = self.apt_config.model_copy(
            update={"prefix_lengths": tuple(prefix_lengths), "kept_tokens": tuple(kept)}
        )
        return tuple(kept)

    def fold_projection(self) -> None:
        """Keeps the keys and values that ``prefix_projection`` computes and drops the network: same outputs."""
        for prefix in self.prefixes:
            if prefix is not None:
                prefix.fold_projection()
        self.apt_config = self.apt_config.model_copy(update={"prefix_projection": False, "encoder_hidden_size": None})

    def fold_gates(self) -> None:
        """Multiplies the prefixes by their gates and scales and drops these: same outputs, no gate left.

        Raises:
            AptValueError: for hidden gates, which depend on the input.
        """
        if self.apt_config.token_gate == "hidden":
            raise AptValueError(
                "token_gate: got 'hidden'; accepted: 'static' or 'none', because a gate that depends on the input "
                "cannot be part of the prefix. Train with token_gate='static' to fold."
            )
        self.fold_projection()
        for prefix in self.prefixes:
            if prefix is not None:
                prefix.fold_gates()
        self.apt_config = self.apt_config.model_copy(update={"token_gate": "none", "layer_scale": False})

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> str | None:
        """Writes ``adapter_config.json`` and ``adapter_model.safetensors``: prefix, gates and head only.

        Args:
            save_directory: folder, made if missing.
            is_main_process: False writes nothing (other ranks of a distributed training).
            push_to_hub: whether to push it too, see ``push_to_hub``.
            repo_id: ``user/name`` to push it to.
            model_card_kwargs: given, even if empty, the folder is for others to see: it gets a README.md, see
                ``generate_model_card``, and no local path.
            options: those of ``push_to_hub``; others, which the Trainer gives to every model, are not needed here.

        Returns:
            The URL of the commit, if it was pushed.
        """
        if not is_main_process:
            return None
        shared = model_card_kwargs is not None
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.trained_state_dict().items()}
        temporary = folder / (WEIGHTS_FILE + ".tmp")
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.replace(folder / WEIGHTS_FILE)
        description = {
            "peft_type": "APT",
            "base_model_name_or_path": self.config.name_or_path if not shared or self.hub_base_model else None,
            "architecture": type(self).__name__,
            "id2label": self.config.id2label,
            "num_layers": len(self._apt_sites),
            "apt_config": self.apt_config.model_dump(),
        }
        write_atomic(folder / CONFIG_FILE, (json.dumps(description, indent=1) + "\n").encode())
        if shared:
            self.generate_model_card(**model_card_kwargs).save(folder / CARD_FILE)
        if not push_to_hub:
            return None
        chosen = {name: options[name] for name in PUSH_OPTIONS if name in options}
        return self.push_to_hub(repo_id, model_card_kwargs=model_card_kwargs, **chosen)

    def load_trained(self, folder: str | Path) -> None:
        """Fills prefix, gates and head from what ``save_pretrained`` wrote; errors as ``load_trained_file``."""
        self.load_trained_file(Path(folder) / WEIGHTS_FILE)

    def load_trained_file(self, path: Path) -> None:
        """Fills prefix, gates and head from a safetensors file.

        Raises:
            AptFileNotFoundError: if the file is missing.
            AptValueError: if it is damaged, or its tensors are not exactly the trained ones.
        """
        self._fill(path, _read_tensors(path))

    def load_prefix(self, path: Path) -> list[str]:
        """The same for an adapter that may be of another task: its head is taken only where it fits.

        Returns:
            Names of the head's tensors that were not taken.
        """
        tensors, own = _read_tensors(path), self.trained_state_dict()
        head = {name for name in tensors.keys() | own.keys() if "apt_prefix" not in name.split(".")}
        shapes = [{name: part[name].shape for name in head & part.keys()} for part in (tensors, own)]
        if shapes[0] == shapes[1]:
            self._fill(path, tensors)
            return []
        kept = {name: own[name].detach() for name in head & own.keys()}
        self._fill(path, {**{name: value for name, value in tensors.items() if name not in head}, **kept})
        return sorted(head & tensors.keys())

    def _fill(self, path: Path, tensors: dict[str, Tensor]) -> None:
        own = self.trained_state_dict()
        expected = {name: tuple(value.shape) for name, value in own.items()}
        received = {name: tuple(value.shape) for name, value in tensors.items()}
        if expected != received:
            differing = sorted(expected.items() ^ received.items())
            raise AptValueError(
                f"{path}: does not fit this model; first difference at {differing[0][0]}: "
                f"got {received.get(differing[0][0])}; accepted: {expected.get(differing[0][0])}."
            )
        self.load_state_dict(tensors, strict=False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        backbone: PreTrainedModel | None = None,
        *,
        dtype: str = "auto",
        **download: Any,
    ) -> AptModel:
        """Loads what ``save_pretrained`` or ``push_to_hub`` wrote.

        Args:
            name_or_folder: the adapter's folder, or ``user/name`` on the Hub.
            backbone: the frozen model to put it on, changed in place; None loads the one named in the config.
            dtype: type of the frozen weights where the backbone is loaded here, such as bfloat16; auto: as stored.
            download: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``; for the Hub.

        Raises:
            AptFileNotFoundError, AptValueError: if the folder is not an adapter, or does not fit the backbone.
            AptError: if the Hub does not give it out.
        """
        folder = Path(name_or_folder)
        if is_repo_id(name_or_folder):
            folder = download_adapter(name_or_folder, (CONFIG_FILE, WEIGHTS_FILE), **download)
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise AptFileNotFoundError(f"{path}: no such file; give the folder that save_pretrained wrote.")
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            config = AptConfig(**description["apt_config"])
            if backbone is None:
                id2label = {int(index): label for index, label in description["id2label"].items()}
                name, architecture = description["base_model_name_or_path"], description["architecture"]
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise AptValueError(f"{path}: damaged, not an adapter's settings ({problem!r}).") from problem
        if backbone is None:
            if not name:
                raise AptValueError(
                    f"{path}: base_model_name_or_path: got {name!r}; accepted: a name to load the backbone by. Load "
                    f"{architecture} yourself and give it: AptModel.from_pretrained(..., backbone)."
                )
            backbone = load_backbone(name, architecture, dtype=dtype, id2label=id2label).model
        model = get_apt_model(backbone, config)
        model.load_trained(folder)
        return model


def get_apt_model(model: PreTrainedModel, config: AptConfig) -> Any:
    """Puts prefixes on ``model``, in place, and freezes everything but prefix, gates and task head.

    Args:
        model: a transformers model, with or without a head.
        config: lengths and gates; lengths of 0 leave a layer exactly as it is.

    Returns:
        The same object; it is now an ``AptModel`` too.

    Raises:
        AptValueError: if the architecture is not one prefixes can be put on, if it has prefixes already, or if
            ``config.prefix_lengths`` is for another number of layers.
    """
    if isinstance(model, AptModel):
        raise AptValueError("model: got a model that has prefixes already; accepted: a model without.")
    if not isinstance(model, PreTrainedModel):
        raise AptValueError(f"model: got {type(model).__name__}; accepted: a transformers PreTrainedModel.")
    sites = chosen_sites(find_sites(model), config)
    lengths = config.lengths(len(sites))
    if config.shift_positions and len(set(lengths)) != 1:
        raise bad_value("shift_positions", True, "False where layers have prefixes of different lengths")
    prefixes = [  # all of them before the first is put on: a model that is refused stays as it was
        LayerPrefix(site.shape, length, config, pooling_of(site, config)) if length else None
        for site, length in zip(sites, lengths, strict=True)
    ]
    head = head_modules(model) if config.modules_to_save is None else config.modules_to_save
    model.requires_grad_(False)
    train_modules(model, head)
    for site, prefix in zip(sites, prefixes, strict=True):
        if prefix is not None:
            attach(site.module, prefix.to(next(site.module.parameters()).device))
    if config.shift_positions:
        model.register_forward_pre_hook(shift_positions, with_kwargs=True)
    backbone_class = type(model)
    model.__class__ = type(backbone_class.__name__, (AptModel, backbone_class), {})
    model.apt_config = config.model_copy(update={"prefix_lengths": lengths, "modules_to_save": tuple(head)})
    model._apt_sites = tuple(site.name for site in sites)
    model._apt_kinds = tuple(site.kind for site in sites)
    model._apt_shapes = tuple(site.shape for site in sites)
    return model


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AptFileNotFoundError(f"{path}: no such file; give the folder that save_pretrained wrote.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as problem:
        raise AptValueError(f"{path}: damaged, cannot be read ({problem}).") from problem


def _gate_of(prefix: LayerPrefix) -> np.ndarray:
    """Gates of a layer that do not depend on the input [P]; equal where it has none."""
    if prefix.token_gate is None:
        return np.zeros(prefix.num_virtual_tokens)
    return prefix.token_gate.weight.detach().float().cpu().numpy()


def part_of(name: str, parameter: nn.Parameter) -> str:
    """Which of ``PARTS`` a parameter of this name belongs to."""
    if not parameter.requires_grad:
        return "frozen"
    parts = name.split(".")
    if "apt_prefix" not in parts:
        return "head"
    inner = parts[parts.index("apt_prefix") + 1]
    return inner if inner in ("token_gate", "layer_scale") else "prefix"
