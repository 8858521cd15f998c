"""Adaptive prefix tuning for Hugging Face models, with every gate recorded.

The public names are loaded on first use, so importing a torch-free part (``apt_core.run_format``, ``apt_core.jobs``)
never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apt_core.callback import GateRecorder
    from apt_core.config import AptConfig, TrainSettings
    from apt_core.errors import AptError
    from apt_core.model import AptModel, get_apt_model
    from apt_core.trainer import AptTrainer

__version__ = "0.1.0"

_HOMES = {
    "AptConfig": "apt_core.config",
    "AptError": "apt_core.errors",
    "AptModel": "apt_core.model",
    "AptTrainer": "apt_core.trainer",
    "GateRecorder": "apt_core.callback",
    "TrainSettings": "apt_core.config",
    "get_apt_model": "apt_core.model",
}

__all__ = [
    "AptConfig",
    "AptError",
    "AptModel",
    "AptTrainer",
    "GateRecorder",
    "TrainSettings",
    "get_apt_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
