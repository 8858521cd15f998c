"""Names of backbones, and folders that bring Python code: refused before anything is loaded or run."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from apt_core.__main__ import app
from apt_core.backbones import load_backbone, load_tokenizer, resolve_backbone
from apt_core.command_line import run_typer
from apt_core.errors import AptError, AptValueError
from apt_core.model_name import check_model_name, is_hub_name

PROJECT = Path(__file__).parents[2]
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}


@pytest.mark.parametrize("name", ["gpt2", "google-bert/bert-base-uncased", "a_b/c.d-e", "x" * 96])
def test_names_of_the_hubs_form_are_taken(name):
    assert is_hub_name(name)
    check_model_name(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bert; rm -rf x", r"not a folder and has characters that no name on the Hub has \('; '\)"),
        ("$(id)", r"\('\$\(\)'\)"),
        ("bert\n", "printable"),
        ("\x1b[31mbert", "printable"),
        ("", "printable"),
        ("--debug", "dash"),
        ("a..b", "not a folder"),
        ("a--b", "not a folder"),
        ("a/b/c", "not a folder"),
        ("~nobody-of-that-name/x", "not a folder"),
        ("x" * 97, "not a folder"),
        ("/" + "x" * 5000, "not a folder"),
    ],
)
def test_name_that_can_be_no_model_is_refused_in_one_line(name, said):
    with pytest.raises(AptError, match=said) as caught:
        check_model_name(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_folder_may_have_any_printable_name(tmp_path):
    folder = tmp_path / "my models (new); copy"
    folder.mkdir()
    check_model_name(str(folder))
    with pytest.raises(AptError, match=r"without config\.json"):
        resolve_backbone(str(folder))


@pytest.fixture(params=["config.json", "tokenizer_config.json"])
def with_code(request, make_backbone, tmp_path) -> Path:
    """A model of transformers' own architecture whose config names code beside it, which would leave a trace."""
    folder = tmp_path / "model"
    make_backbone().save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_backbone("minilm")).save_pretrained(folder)
    path = folder / request.param
    classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoTokenizer": ["code.Slow", "code.Fast"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": classes}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\n")
    return folder


def test_model_that_brings_code_is_refused_and_its_code_not_run(with_code, tmp_path):
    for load in (lambda: load_backbone(str(with_code), "AutoModel"), lambda: load_tokenizer(str(with_code))):
        with pytest.raises(AptValueError, match=r"names Python code of its own \(auto_map\), which is never run"):
            load()
    assert not (tmp_path / "trace").exists()


def test_training_on_a_model_that_brings_code_starts_nothing(with_code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["apt_core", "train", "--model", str(with_code), "--out", "run"])
    with pytest.raises(SystemExit) as ending:
        run_typer(app)
    said = capsys.readouterr().err
    assert (ending.value.code, said.count("\n")) == (2, 1)
    assert "auto_map" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_code_is_not_run_where_the_config_is_not_looked_at_first(with_code, tmp_path, monkeypatch):
    """transformers itself is told never to run it, whichever way the files came."""
    config = json.loads((with_code / "config.json").read_text())
    if "auto_map" in config:
        (with_code / "config.json").write_text(json.dumps({**config, "model_type": "made-up", "architectures": ["X"]}))
    monkeypatch.setattr("apt_core.backbones._check_brings_no_code", lambda name, folder: None)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    if "auto_map" in config:
        with pytest.raises(AptValueError, match=r"cannot load \(.*custom code"):
            load_backbone(str(with_code), "AutoModel")
    else:
        load_tokenizer(str(with_code))
    assert not (tmp_path / "trace").exists()


def test_nothing_is_run_through_a_shell_and_no_code_of_models_is_trusted():
    files = [path for part in ("apt_core", "analysis", "docs") for path in (PROJECT / part).rglob("*.py")]
    files.append(PROJECT / "app.py")
    assert len(files) > 100
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {each.arg: each.value for each in node.keywords}
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert name not in SHELLS, f"{path}:{node.lineno}"
                for forbidden in ("shell", "trust_remote_code"):
                    value = given.get(forbidden)
                    assert value is None or getattr(value, "value", True) is False, f"{path}:{node.lineno}"
