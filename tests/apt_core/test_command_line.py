"""What a person can get wrong at the command line: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import app as analysis_app
from apt_core.__main__ import app as core_app
from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptValueError
from apt_core.run_format import update_finished_run
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs a command line in-process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(app, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "train --task sst9",
            "task: got 'sst9'; accepted: pydoc-topic, pydoc-entities, copa, wnut17, boolq, cb, rte, wic, wsc, text-",
        ),
        ("train --task copa --out new", "task copa reads files; give --data-dir"),
        ("train --task copa --data-dir missing --out new", "data-dir: got 'missing', which is not a folder"),
        ("train --prefix-lengths 1,2,x --out new", "prefix_lengths: got '1,2,x'; accepted: integers from 0"),
        ("train --prefix-lengths 1,-2 --out new", "prefix_lengths: got '1,-2'; accepted: integers from 0"),
        ("train --prefix-lengths 1,2000 --out new", "prefix_lengths: got '1,2000'; accepted: integers from 0 to 1024"),
        ("train --num-virtual-tokens 0 --out new", "num_virtual_tokens: got 0"),
        (
            "train --num-virtual-tokens 2 --prefix-lengths 1,2 --out new",
            "either --num-virtual-tokens or --prefix-lengths",
        ),
        ("train --token-gate soft --out new", "token_gate: got 'soft'"),
        ("train --epochs 0 --out new", "epochs: got 0"),
        ("train --lr -1 --out new", "learning_rate: got -1"),
        ("train --epochs many", "--epochs"),
        ("train --device tpu --out new", "device: got 'tpu'"),
        ("train --resume", "Add --out with --resume"),
        ("train --resume --out nothing", "out: got 'nothing'; accepted: a folder with an interrupted run"),
        ("train --no-such-flag", "No such option: --no-such-flag"),
        ("train --train-file a.csv --out new", "Add --task for the data that was named."),
        ("train --train-file a.csv --label-column y --out new", "a.csv: no such file"),
        ("train --data-dir a --train-file a.csv --task text-classification --out new", "two places; give one"),
        ("train --label-column y --tags-column z --out new", "belong to different tasks; give one"),
        ("train --prompt-column a --target-column b --out new", "give --task causal-lm"),
        ("train --task pydoc-topic --text-column a --out new", "is built in and reads no data; leave --text-"),
        ("train --optim magic --out new", "optim: got 'magic'; accepted: "),
        ("train --gate-lr 2 --out new", "gate_learning_rate: got 2.0"),
        ("train --gate-init 1 --out new", "gate_init: got 1"),
        ("train --encoder-hidden-size 8 --out new", "encoder_hidden_size is the width inside the projection"),
        ("train --prefix-dropout 1 --out new", "prefix_dropout: got 1"),
        ("train --snapshot-steps 5,x --out new", "snapshot_steps: got '5,x'; accepted: optimizer steps from 1"),
        ("train --attention sideways --out new", "attention.0: got 'sideways'"),
        ("train --dtype int8 --out new", "dtype: got 'int8'"),
        ("train --out /dev/null/new", "out: got '/dev/null/new'; accepted: a folder that can be made"),
        ("train --init-adapter nothing --out new", "init-adapter: got 'nothing', which has no adapter_config.json"),
        ("dance", "dance"),
        ("retrain missing --prefix-lengths 1,2", "missing: not a run folder"),
        ("evaluate missing", "missing: not a run folder"),
        ("export missing --out new", "missing: not a run folder"),
        ("import missing --out new", "missing: "),
        ("push missing me/name", "missing: not a run folder"),
        ("push missing name", "repo_id: got 'name'; accepted: user/name"),
        ("export missing --out new --format onnx", "format: got 'onnx'; accepted: peft"),
        ("jobs logs nope", "job: got 'nope'; accepted: an id"),
        ("jobs submit dance", "command: got 'dance'; accepted: train"),
        ("jobs submit retrain runs/a", "--out with the new run's folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, tmp_path, words, message):
    code, out, err = call(core_app, *words.split())
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def write_split(folder: Path, split: str, content: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / split).write_text(content)


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        ("copa", "train.jsonl", '{"premise": "a"\n', "copa/train.jsonl:1: got"),
        ("copa", "train.jsonl", "", "copa/train.jsonl: holds no example"),
        ("wnut17", "train.conll", "Paris\tB-x\nlost\n", "wnut17/train.conll:2: got 'lost'"),
        ("wnut17", "train.conll", "a\tO\n", "wnut17/validation.conll: no such file"),
    ],
)
def test_malformed_data_names_file_and_line_and_writes_nothing(call, tmp_path, task, name, content, message):
    write_split(tmp_path / task, name, content)
    code, _, err = call(core_app, "train", "--task", task, "--data-dir", ".", "--out", "new")
    assert code == 2
    assert message in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (".", "a folder without config.json"),
        ("./nowhere/model", "which is not a folder"),
        ("no model; rm -rf x", "which is not a folder"),
        ("some-org/never-downloaded", "which transformers cannot load"),
    ],
)
def test_unusable_model_is_refused_before_anything_is_written(call, data_folder, tmp_path, model, message):
    words = ["train", "--task", "copa", "--data-dir", str(data_folder), "--model", model, "--out", "new"]
    code, _, err = call(core_app, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_output_folder_with_other_files_is_refused(call, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not touch")
    code, _, err = call(core_app, "train", "--out", "full")
    assert (code, "accepted: a folder that is new or empty" in err) == (2, True)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "do not touch"


@pytest.mark.parametrize("method", ["share", "threshold", "topk"])
def test_budget_prints_lengths_that_sum_to_the_total(call, record_run, tmp_path, method):
    run = record_run(tmp_path / "run", steps=20)
    code, out, err = call(analysis_app, "budget", str(run), "--total", "24", "--method", method, "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert (sum(printed["prefix_lengths"]), printed["total"], printed["method"]) == (24, 24, method)
    assert len(printed["prefix_lengths"]) == 6


def test_budget_without_json_ends_with_the_next_command(call, record_run, tmp_path):
    run = record_run(tmp_path / "run", steps=20)
    _, out, _ = call(analysis_app, "budget", str(run), "--total", "24")
    assert out.splitlines()[-1].strip().startswith(f"python -m apt_core retrain {run} --prefix-lengths ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--total 97 --method topk", "total: got 97; accepted: 0 to 96"),
        ("--total -1", "total: got -1"),
        ("--total 4 --min-per-layer 1", "total: got 4; accepted: 6 to"),
        ("--total x", "--total"),
        ("--total 4 --method magic", "method: got 'magic'; accepted: share, threshold, topk"),
        ("", "Missing option '--total'"),
    ],
)
def test_budget_with_bad_input_is_one_line_and_exit_code_2(call, record_run, tmp_path, words, message):
    run = record_run(tmp_path / "run", steps=2)
    code, out, err = call(analysis_app, "budget", str(run), *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_budget_of_a_run_with_damaged_gates_names_the_file(call, record_run, tmp_path):
    next((record_run(tmp_path / "run", steps=2) / "gates").iterdir()).write_bytes(b"x")
    code, _, err = call(analysis_app, "budget", "run", "--total", "4")
    assert (code, "gates-00000001.safetensors" in err) == (2, True)


@pytest.fixture
def interrupted_run(backbone_folder, data_folder, tmp_path) -> Path:
    """A run that failed after its first epoch."""
    job = TrainJob(
        task="copa",
        out=tmp_path / "run",
        model=str(backbone_folder),
        apt=AptConfig(num_virtual_tokens=2),
        training=TrainSettings(epochs=2, batch_size=8, device="cpu"),
        data=DataSource(data_dir=str(data_folder)),
    )
    train(job, say=lambda line: None)
    update_finished_run(job.out, status="interrupted")
    return job.out


def test_resume_with_the_same_flags_or_none_goes_on(call, interrupted_run, data_folder):
    words = ["train", "--task", "copa", "--data-dir", str(data_folder), "--epochs", "2", "--num-virtual-tokens", "2"]
    code, out, _ = call(core_app, *words, "--out", str(interrupted_run), "--resume", "--json")
    assert (code, json.loads(out)["status"]) == (0, "finished")
    update_finished_run(interrupted_run, status="interrupted")
    assert call(core_app, "train", "--out", str(interrupted_run), "--resume")[0] == 0


def test_resume_finds_data_that_moved_and_refuses_other_data(call, interrupted_run, data_folder, tmp_path):
    moved, other = tmp_path / "moved", tmp_path / "other"
    for folder in (moved, other):
        shutil.copytree(data_folder, folder)
    train_file = next(other.rglob("train.jsonl"))
    train_file.write_text("\n".join(train_file.read_text().splitlines()[1:]) + "\n")
    words = ["train", "--out", str(interrupted_run), "--resume", "--data-dir"]
    code, _, err = call(core_app, *words, str(other))
    assert (code, "but the run began with" in err) == (2, True), err
    assert call(core_app, *words, str(moved))[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 9", "epochs: got 9; accepted: 2, as in the run that is resumed"),
        ("--lr 0.5", "lr: got 0.5; accepted: 0.005"),
        ("--task wnut17", "task: got 'wnut17'; accepted: 'copa'"),
        ("--prefix-lengths 1,1,1", "prefix-lengths: got (1, 1, 1); accepted: (2, 2, 2)"),
        ("--token-gate none", "token-gate: got 'none'; accepted: 'hidden'"),
        ("--model minilm", "model: got 'sentence-transformers/all-MiniLM-L6-v2'; accepted: '"),
    ],
)
def test_resume_with_other_settings_is_refused(call, interrupted_run, words, message):
    before = (interrupted_run / "run.json").read_bytes()
    code, _, err = call(core_app, "train", "--out", str(interrupted_run), "--resume", *words.split())
    assert (code, message in err) == (2, True), err
    assert (interrupted_run / "run.json").read_bytes() == before


def failing_app(problem: Exception):
    import typer

    app = typer.Typer()

    @app.command()
    def fail(debug: bool = False) -> None:
        raise problem

    return app


@pytest.mark.parametrize(("problem", "expected"), [(RuntimeError("boom"), 1), (AptValueError("lr: no"), 2)])
def test_traceback_is_shown_only_with_debug(call, problem, expected):
    code, _, err = call(failing_app(problem))
    assert (code, "Traceback" in err, err.count("\n")) == (expected, False, 1)
    code, _, err = call(failing_app(problem), "--debug")
    assert (code, "Traceback" in err) == (expected, True)


HELP = [(), ("train",), ("retrain",), ("evaluate",), ("export",), ("import",), ("push",), ("jobs",), ("jobs", "submit")]


@pytest.mark.parametrize("words", HELP)
def test_help_is_there_for_every_command_and_loads_no_torch(words):
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['apt_core', {', '.join(map(repr, [*words, '--help']))}]\n"
        "try: runpy.run_module('apt_core', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as ending: code = ending.code\n"
        "print('torch' in sys.modules, code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage:" in result.stdout
    assert result.stdout.endswith("False 0\n")
