"""Uploads the adapter of a finished run to the Hugging Face Hub, with a card that tells its results."""

from __future__ import annotations

from pathlib import Path

from apt_core.evaluate_run import load_run
from apt_core.hub import check_repo_id, check_token


def push_run(folder: Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Pushes ``adapter_config.json``, ``adapter_model.safetensors`` and a README.md; no predictions, no data.

    Args:
        folder: folder of a finished run.
        repo_id: ``user/name``; made if it does not exist.
        private: whether a repository that is made is for its owner only.
        token: access token; None: that of ``hf auth login`` or HF_TOKEN.

    Returns:
        The URL of the commit.

    Raises:
        AptError: if the run is not finished or damaged, the name is no repository's, or the Hub does not take it.
    """
    check_repo_id(repo_id)
    check_token(token)
    model = load_run(folder)
    return str(model.push_to_hub(repo_id, private=private, token=token, model_card_kwargs={"run": folder}))
