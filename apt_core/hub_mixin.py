"""What an adapter has of the Hugging Face Hub: ``push_to_hub`` and its model card, by huggingface_hub's own mixin."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin

from apt_core.hub import check_repo_id, check_token, hub_errors, is_hub_model
from apt_core.model_card import PAPER_URL, TAGS, model_card

CARD_FILE = "README.md"
PUSH_OPTIONS = ("private", "token", "commit_message", "branch", "create_pr")


class HubMixin(ModelHubMixin, library_name="apt-gate-studio", paper_url=PAPER_URL, tags=[*TAGS]):
    """Base of ``AptModel``, which brings ``save_pretrained`` and ``from_pretrained``."""

    _hub_mixin_config = {}  # noqa: RUF012  (the backbone has its config; the mixin must not make one of its arguments)

    @property
    def hub_base_model(self) -> str | None:
        """The backbone's name on the Hub; None where it was built here or loaded from a folder."""
        name = self.config.name_or_path
        return name if name and is_hub_model(name) else None

    def generate_model_card(self, **details: Any) -> ModelCard:
        """The README.md of the adapter on the Hub, see ``apt_core.model_card.model_card``."""
        return model_card(self, **details)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Uploads the adapter's two files and a model card in one commit; nothing of the backbone.

        Args:
            repo_id: ``user/name``; the repository is made if it does not exist.
            token: access token; None: that of ``hf auth login`` or HF_TOKEN.
            model_card_kwargs: of ``model_card``, such as ``{"run": Path("runs/copa-apt-1")}`` for results in the card.
            options: ``private``, ``commit_message``, ``branch``, ``create_pr``; see ``huggingface_hub.ModelHubMixin``.

        Returns:
            The URL of the commit.

        Raises:
            AptValueError: if ``repo_id`` is no such name.
            AptError: if the Hub is not reached or does not allow it, with what to do.
        """
        check_repo_id(repo_id)
        check_token(token)
        with hub_errors(repo_id, writing=True):
            return super().push_to_hub(
                repo_id, token=token, model_card_kwargs={"repo_id": repo_id, **(model_card_kwargs or {})}, **options
            )
