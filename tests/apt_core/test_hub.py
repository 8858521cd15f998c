"""Adapters to a Hub and back: huggingface_hub's own client in a fresh process, against a server on this machine."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelHubMixin
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from apt_core import AptConfig, AptError, AptModel, get_apt_model
from apt_core.hub import check_repo_id, check_token, is_hub_model, is_repo_id
from tests.apt_core.hub_server import TOKEN, HubServer
from tests.server_thread import running

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
CLIENT = """
import sys
import torch
from pathlib import Path
from transformers import BertForSequenceClassification
from apt_core import AptError, AptModel

folder, backbone_folder = Path(sys.argv[1]), sys.argv[2]

def backbone():
    return BertForSequenceClassification.from_pretrained(backbone_folder)

def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(4, 12)[None]).logits
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running(HubServer()) as server:
        yield server


@pytest.fixture
def saved(make_backbone, tmp_path) -> tuple[Path, Path]:
    """An adapter, and the backbone that it is for, in folders."""
    torch.manual_seed(3)
    make_backbone().save_pretrained(tmp_path / "backbone")
    backbone = BertForSequenceClassification.from_pretrained(tmp_path / "backbone")
    get_apt_model(backbone, AptConfig(prefix_lengths=(2, 0, 3))).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", tmp_path / "backbone"


def run_client(hub: HubServer, saved: tuple[Path, Path], code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``code`` where Hub calls go to ``hub``; it has folder, backbone_folder, backbone() and logits(model)."""
    told = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(saved[0].parent / "hf-home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "20",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-c", CLIENT + code, *map(str, saved)],
        env={**kept, **told},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_pushed_adapter_is_three_files_and_loads_with_equal_outputs(hub, saved):
    done = run_client(
        hub,
        saved,
        """
model = AptModel.from_pretrained(folder, backbone())
print(model.push_to_hub("me/tiny-apt", private=True))
again = AptModel.from_pretrained("me/tiny-apt", backbone(), revision="main")
assert torch.equal(logits(again), logits(model))
assert again.apt_config == model.apt_config
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/tiny-apt/commit/{hub.commit_of('me/tiny-apt')}"
    repository = hub.repositories["me/tiny-apt"]
    assert sorted(repository) == FILES
    assert repository["adapter_model.safetensors"] == (saved[0] / "adapter_model.safetensors").read_bytes()
    assert hub.visibility["me/tiny-apt"] == "private"
    assert b'AptModel.from_pretrained("me/tiny-apt", backbone)' in repository["README.md"]
    for content in repository.values():
        assert str(saved[0].parent).encode() not in content
    assert TOKEN not in done.stdout + done.stderr


def test_both_files_are_fetched_from_one_commit_and_kept(hub, saved):
    hub.repositories["me/tiny-apt"] = {path.name: path.read_bytes() for path in saved[0].iterdir()}
    done = run_client(
        hub,
        saved,
        """
from apt_core import hub
asked, real = [], hub.hf_hub_download

def download(repo_id, name, **options):
    asked.append(options["revision"])
    return real(repo_id, name, **options)

hub.hf_hub_download = download
AptModel.from_pretrained("me/tiny-apt", backbone())
print(asked[0], asked[1])
AptModel.from_pretrained("me/tiny-apt", backbone(), local_files_only=True)
""",
    )
    assert done.stdout.split() == ["None", hub.commit_of("me/tiny-apt")], done.stderr


TRY = """
model = AptModel.from_pretrained(folder, backbone())

def attempt(name, call):
    try:
        call()
        print(name, "done")
    except AptError as problem:
        print(name, type(problem).__name__, problem)
"""


def lines_of(done: subprocess.CompletedProcess) -> dict[str, str]:
    """What each ``attempt`` printed, one line each, by its name."""
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_what_the_hub_refuses_is_said_in_one_line_without_the_token(hub, saved):
    hub.repositories["me/empty"] = {"config.json": b"{}"}
    hub.refused = {
        "/api/models/me/broken/commit/main": (500, "disk full"),
        "/api/models/me/readonly/preupload/main": (403, "no rights under me"),
    }
    code = """
for name, repo_id, token in [
    ("wrong", "me/apt", "hf_wrong"),
    ("anonymous", "me/apt", False),
    ("garbled", "me/apt", "hf_wrong\\n"),
    ("broken", "me/broken", None),
    ("readonly", "me/readonly", None),
]:
    attempt(name, lambda: model.push_to_hub(repo_id, token=token))
attempt("missing", lambda: AptModel.from_pretrained("me/missing", backbone()))
attempt("empty", lambda: AptModel.from_pretrained("me/empty", backbone()))
"""
    done = run_client(hub, saved, TRY + code)
    expected = {
        "wrong": r"AptError .*the Hub answers 401: Invalid username or password.*Run 'hf auth login' or set HF_TOKEN",
        "anonymous": r"AptError .*the Hub answers 401.*Run 'hf auth login' or set HF_TOKEN",
        "garbled": r"AptValueError token: got text with spaces or special characters",
        "broken": r"AptError .*'me/broken', but the Hub answers 500: disk full\. Try again",
        "readonly": r"AptError .*the Hub answers 403: no rights under me.*a token that may write",
        "missing": r"AptFileNotFoundError .*no repository on the Hub that you may read.*hf auth login",
        "empty": r"AptFileNotFoundError .*holds no adapter of ours",
    }
    received = lines_of(done)
    assert received.keys() == expected.keys()
    for name, pattern in expected.items():
        assert re.fullmatch(pattern + ".*", received[name]), received[name]
    for token in (TOKEN, "hf_wrong"):
        assert token not in done.stdout + done.stderr


def test_without_the_hub_it_is_said_how_to_reach_it(hub, saved):
    code = """
attempt("push", lambda: model.push_to_hub("me/apt"))
attempt("load", lambda: AptModel.from_pretrained("me/apt", backbone()))
"""
    received = lines_of(run_client(hub, saved, TRY + code, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set; unset it" in received["push"]
    assert received["load"].startswith("AptFileNotFoundError repo_id: got 'me/apt', which is no folder here, is not in")
    code = code.splitlines()[1]
    received = lines_of(run_client(hub, saved, TRY + code, HF_ENDPOINT="http://127.0.0.1:1"))
    assert "the Hub is not reached (ConnectError). Check the connection" in received["push"]


def test_load_of_an_adapter_that_names_no_backbone_says_how_to_give_one(saved):
    settings = json.loads((saved[0] / "adapter_config.json").read_text())
    (saved[0] / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(AptError, match=r"Load BertForSequenceClassification yourself"):
        AptModel.from_pretrained(saved[0])


def test_push_of_a_run_uploads_adapter_and_card_only(hub, saved, record_run):
    run = saved[0].parent / "run"
    record_run(run, lengths=(2, 0, 3), task="copa", model=str(saved[1]), split_sizes={"validation": 100})
    saved[0].rename(run / "adapter")
    code = """
from apt_core.push_run import push_run
print(push_run(folder, "me/run-apt", private=False))
"""
    done = run_client(hub, (run, saved[1]), code)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["me/run-apt"]
    assert sorted(repository) == FILES
    assert b"| validation | 100 | accuracy | 0.5 |" in repository["README.md"]
    assert hub.visibility["me/run-apt"] == "public"


def test_push_of_a_run_that_is_not_finished_is_refused(saved, record_run):
    from apt_core.push_run import push_run
    from apt_core.run_format import update_finished_run

    run = saved[0].parent / "run"
    record_run(run)
    update_finished_run(run, status="failed")
    with pytest.raises(AptError, match="which is failed; accepted: a finished run"):
        push_run(run, "me/run-apt")


@pytest.mark.parametrize("repo_id", ["tiny", "me/tiny/apt", "me/ti ny", "me/../x", "", "me/x.git", "/me", None])
def test_check_repo_id_refuses_what_is_no_repository(repo_id):
    with pytest.raises(AptError, match=r"repo_id: got .*accepted: user/name"):
        check_repo_id(repo_id)


@pytest.mark.parametrize("token", ["hf_a b", "hf_a\n", "", "hf_\u00fc"])
def test_check_token_refuses_it_without_showing_it(token):
    with pytest.raises(AptError, match="token: got text with") as caught:
        check_token(token)
    assert not token or token not in str(caught.value)


def test_name_of_a_folder_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repo_id("runs/copa")
    assert is_hub_model("gpt2")
    (tmp_path / "runs" / "copa").mkdir(parents=True)
    (tmp_path / "gpt2").mkdir()
    assert not is_repo_id("runs/copa")
    assert not is_repo_id(Path("me/name"))
    assert not is_repo_id("./me/name")
    assert not is_hub_model("gpt2")
    assert not is_hub_model("/models/gpt2")


def test_save_pretrained_writes_a_card_only_when_asked_and_leaves_other_files(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    (tmp_path / "config.json").write_text("{}")
    model.save_pretrained(tmp_path, state_dict=model.state_dict(), is_main_process=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES[1:], "config.json"]
    model.save_pretrained(tmp_path, model_card_kwargs={})
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: apt-gate-studio\n")
    assert load_file(tmp_path / FILES[2]).keys() == model.trained_state_dict().keys()
    assert (tmp_path / "config.json").read_text() == "{}"


def test_the_mixin_leaves_copies_and_the_backbones_config_alone(backbone):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    assert isinstance(model, ModelHubMixin)
    twin = copy.deepcopy(model)
    assert twin.config.to_dict() == model.config.to_dict()
    assert "_hub_mixin_config" not in vars(twin)
    assert type(twin) is type(model)
