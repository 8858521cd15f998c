"""Every code block of the README and of ``docs`` is tried, in a small world: a seeded 6-layer BERT, little data.

Commands of ours are run as they are written, in order, each page in a folder of its own. Those that start processes of
their own, take minutes even here, or need a cluster, the Hub or an id that only a run of theirs gives, are parsed by
the real command line.
"""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import typer
from transformers import BertConfig, BertModel, BertTokenizerFast

from analysis.access import read_flags
from apt_core.__main__ import app as apt_core_app
from apt_core.sweep_spec import parse_spec
from apt_core.tasks import load_task, pydoc_entities, pydoc_topic
from tests.apt_core.conftest import backbone_folder, data_folder  # noqa: F401 (fixtures)

PROJECT = Path(__file__).parents[1]
APART = ("api.md", "structure.md", "contributing.md")
"""pages that are written by a command, or have a test of their own"""
PAGES = [
    PROJECT / "README.md",
    *(page for page in sorted((PROJECT / "docs").glob("*.md")) if page.name not in APART),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
OTHERS = ("python3", ".venv/bin/pip", ".venv/bin/streamlit", ".venv/bin/python", "source", "pip", "ray", "export")
"""programs that are not ours, in blocks that ``.ci/run`` and tests of jobs on a cluster try"""
PARSED = (
    ["bench-inference"],
    ["transfer"],
    ["jobs", "submit"],
    ["jobs", "logs"],
    ["jobs", "cancel"],
    ["jobs", "retry"],
    ["sweep"],
    ["push"],
)


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(page: Path) -> list[list[str]]:
    """The words of every command line of a page, in order."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


LOADED = {module: cache(module.load) for module in (pydoc_topic, pydoc_entities)}
"""reads the standard library's sources once"""
with_commands = [page for page in PAGES if commands(page)]


@pytest.fixture
def world(tmp_path, backbone_folder, data_folder, monkeypatch) -> Path:  # noqa: F811
    """A working folder with what pages take for granted; the default backbone and the built-in tasks are small."""
    small = tmp_path / "backbone"
    tokenizer = BertTokenizerFast.from_pretrained(str(backbone_folder))
    tokenizer.save_pretrained(small)
    sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(small)
    monkeypatch.setattr("apt_core.backbones._offline_folder", lambda: str(small))
    monkeypatch.setattr(pydoc_topic, "MAX_PER_AREA", {"train": 4, "validation": 4, "test": 4})
    monkeypatch.setattr(pydoc_topic, "MIN_TOTAL", 1)
    monkeypatch.setattr(pydoc_entities, "MAX_EXAMPLES", {"train": 32, "validation": 32, "test": 16})
    monkeypatch.setattr(pydoc_entities, "MIN_TOTAL", 1)
    for module, load in LOADED.items():
        monkeypatch.setattr(module, "load", load)
    shutil.copytree(data_folder, tmp_path / "data")
    reviews = [f'"the {word} of {number}",{number % 3}' for number, word in enumerate(["river", "cloud", "door"] * 20)]
    (tmp_path / "reviews.csv").write_text("\n".join(["Review Text,Stars", *reviews]) + "\n")
    sentence = "tree a b B-x\nis a b O\n\nriver a b B-x\nflows a b O\n\n"
    (tmp_path / "ner.conll").write_text("".join(sentence.replace("flows", f"flows{n}") for n in range(20)))
    (tmp_path / "grid.toml").write_text(blocks(PROJECT / "docs" / "sweeps.md", "toml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def run(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """``python -m MODULE WORDS`` in this process: its exit code."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(SystemExit) as ending:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    return ending.value.code


def parse(words: list[str]) -> dict[str, Any]:
    """What the command line of ``apt_core`` makes of words, without doing it; refuses what it would refuse."""
    command = typer.main.get_command(apt_core_app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context("command", list(words))
    if context.args:  # jobs submit: the command inside
        return parse(context.args)
    return context.params


@pytest.mark.parametrize("page", with_commands, ids=lambda page: page.name)
def test_commands_of_a_page_do_what_they_say(page, world, monkeypatch, capfd):
    for words in commands(page):
        line = shlex.join(words)
        if words[0] in ("torchrun", "accelerate"):
            parse(words[words.index("apt_core") + 1 :])
        elif words[:2] == ["streamlit", "run"]:
            flags = words[words.index("--") + 1 :] if "--" in words else []
            assert not read_flags(["app.py", *flags]).problem, line
        elif words[:2] == ["python", "-m"]:
            module, rest = words[2], words[3:]
            elsewhere = rest[:1] in PARSED or rest[:2] in PARSED or "ray" in rest or "--dataset-name" in rest
            if module == "apt_core" and elsewhere:
                parse(rest)
            else:
                assert run(module, rest, monkeypatch) == 0, f"{line}\n{capfd.readouterr().err[-1500:]}"
        else:
            assert words[0] in OTHERS or "=" in words[0], f"{page.name}: who tries {line!r}?"
    if page.name == "quick-start.md":  # what its commands have made is used
        capfd.readouterr()
        (code,) = blocks(page, "python")
        exec(code, {})
        assert capfd.readouterr().out.strip() in load_task("pydoc-topic").labels


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "toml")])
def test_specs_are_accepted(code):
    assert parse_spec(code.encode(), "spec").tasks


def test_python_of_the_readme_trains_and_saves(world, monkeypatch):
    (code,) = blocks(PROJECT / "README.md", "python")
    rows = {"input_ids": [[2, 5, 6, 3]] * 8, "attention_mask": [[1] * 4] * 8, "labels": [0, 1] * 4}
    with contextlib.redirect_stdout(None):
        exec(code, {"name": str(world / "backbone"), "data": datasets.Dataset.from_dict(rows)})
    assert (world / "runs" / "mine" / "adapter" / "adapter_model.safetensors").exists()
    assert (world / "runs" / "mine" / "run.json").exists()


def test_no_block_is_of_another_kind():
    assert {name for page in PAGES for name, _ in BLOCK.findall(page.read_text("utf-8"))} <= {
        "",
        "sh",
        "python",
        "toml",
    }
