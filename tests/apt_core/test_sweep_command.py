"""``python -m apt_core sweep``: what it checks before anything is started, and what it prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from apt_core.__main__ import app
from apt_core.budget_file import BudgetFile, budget_text
from apt_core.command_line import run_typer
from apt_core.config import AptConfig
from apt_core.errors import AptError
from apt_core.jobs import JobReport
from apt_core.sweep_begin import check_data
from apt_core.sweep_format import read_sweep
from apt_core.sweep_layers import Asked, count_layers
from apt_core.sweep_plan import Training
from apt_core.sweep_spec import parse_spec
from apt_core.tasks.base import TaskData
from tests.apt_core.sweep_world import TrainingJobs, begun

GRID = """
tasks = ["copa"]
seeds = 2
budgets = [1.0, 6]
methods = ["share", "uniform"]
learning_rates = [0.01]
[train]
num-virtual-tokens = 4
data-dir = "{data}"
"""


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("apt_core.sweep_begin.count_layers", lambda asked: [3] * len(asked))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


@pytest.fixture
def spec(tmp_path, data_folder) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID.format(data=data_folder))
    return path


@pytest.fixture
def jobs(monkeypatch, record_run, tmp_path, data_folder):
    """What the command submits to: jobs that run nowhere."""
    elsewhere = begun(tmp_path / "elsewhere", GRID.format(data=data_folder))
    listed = TrainingJobs(record_run, elsewhere._replace(folder=Path("runs/grid")))
    monkeypatch.setattr("apt_core.sweep_process.jobs_of", lambda out, sweep: listed)
    monkeypatch.setattr("apt_core.sweep.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr("apt_core.sweep._suggest", suggest)
    return listed


def suggest(parent: Path, training: Training, budget: Path) -> None:
    """What ``python -m analysis budget`` writes, without the seconds that it takes."""
    budget.parent.mkdir(exist_ok=True)
    lengths = [1, 2, training.total - 3]
    budget.write_text(budget_text(BudgetFile(prefix_lengths=lengths, total=training.total)))


def changed(spec: Path, old: str, new: str) -> None:
    assert old in spec.read_text()
    spec.write_text(spec.read_text().replace(old, new))


def test_dry_run_prints_the_plan_and_starts_nothing(call, spec, tmp_path):
    code, out, _ = call("sweep", str(spec), "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "waiting         12 virtual tokens  copa-lr0.01-s1-full  4 4 4"
    assert lines[1].endswith("copa-lr0.01-s1-b6-share  from copa-lr0.01-s1-full")
    assert lines[2].endswith("copa-lr0.01-s1-b6-uniform  2 2 2")
    assert lines[-1] == "6 trainings, 0 of them finished, 6 to do -> runs/grid"
    code, out, _ = call("sweep", str(spec), "--dry-run", "--json")
    assert [each["total"] for each in json.loads(out)["trainings"]] == [12, 6, 6] * 2
    assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds", "sedes", "grid.toml: sedes: got 2; accepted: only the keys tasks, seeds"),
        ("copa", "chess", "tasks: got"),
        ("0.01", "0", "learning_rates: got"),
        (" 6]", " 13]", "budgets: got 13; accepted: 1 to 12 virtual tokens for copa"),
        ("data-dir", "model = 'no such; model'\ndata-dir", "model: got 'no such; model', which is not a folder"),
        ('"copa"', '"boolq"', "no such file"),
        ("num-virtual-tokens = 4", "shots = 1000", "shots: got 1000"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_started(call, spec, tmp_path, old, new, message):
    changed(spec, old, new)
    code, out, err = call("sweep", str(spec))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == [spec]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep", "missing.toml"), "missing.toml: no such file"),
        (
            ("sweep", "grid.toml", "--slots", "2", "--executor", "ray", "--address", "http://127.0.0.1:1"),
            "slots: got 2",
        ),
        (("sweep", "grid.toml", "--executor", "ray", "--address", "nowhere"), "address: got 'nowhere'"),
        (("sweep", "grid.toml", "--address", "http://127.0.0.1:1"), "address: got"),
    ],
)
def test_bad_words_are_one_line_and_nothing_is_started(call, spec, tmp_path, words, message):
    code, out, err = call(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == [spec]


def test_data_without_a_test_split_has_none_to_measure(tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\n" + "a b,x\nc d,y\n" * 20)
    text = 'tasks = ["text-classification"]\nseeds = 1\nbudgets = [1.0]\ntest = true\n[train]\n'
    text += f'train-file = "{tmp_path}/mine.csv"'
    with pytest.raises(AptError, match="test: got true, but the data of text-classification has no test split"):
        check_data(parse_spec(text.encode(), "spec"), "text-classification")


def test_whole_sweep_prints_its_table_and_a_second_call_does_nothing(call, spec, jobs, monkeypatch):
    code, out, err = call("sweep", str(spec))
    assert code == 0, err
    assert "copa, learning rate 0.01: accuracy, mean and 95% interval over seeds" in out
    assert "12      full     2/2" in out
    assert "streamlit run app.py -- --runs runs/grid" in out
    assert "6/6" in err
    assert Path("runs/grid/sweep.toml").read_text() == spec.read_text()
    submitted = len(jobs.jobs)
    monkeypatch.setattr("apt_core.sweep_begin.load_task", None)  # the data is not looked at any more
    code, out, _ = call("sweep", str(spec), "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["complete"], result["stopped"], len(result["trainings"])) == (True, False, 6)
    share = next(cell for cell in result["cells"] if cell["method"] == "share")
    assert share["validation"] == {"mean": 0.5, "half": None, "count": 2}
    assert share["against_uniform"]["validation"] == {"mean": 0.0, "low": None, "high": None}
    assert len(jobs.jobs) == submitted


def test_failure_is_reported_at_the_end_with_exit_code_1(call, spec, jobs):
    jobs.ends["copa-lr0.01-s1-full"] = [JobReport("failed", exit_code=1)]
    code, out, _ = call("sweep", str(spec))
    assert code == 1
    assert "not finished: 2" in out
    assert "  copa-lr0.01-s1-full  failed: log of 0001-a" in out
    assert "  copa-lr0.01-s1-b6-share  waiting: waits for copa-lr0.01-s1-full" in out
    assert "--retry-failed tries them again" in out
    assert call("sweep", str(spec), "--retry-failed")[0] == 0


def test_another_sweep_in_the_folder_is_refused_and_the_key_named(call, spec, jobs):
    assert call("sweep", str(spec))[0] == 0
    changed(spec, "seeds = 2", "seeds = 1")
    code, _, err = call("sweep", str(spec))
    assert code == 2
    assert "out: runs/grid holds another sweep: seeds: got [1]; accepted: those that this sweep has already" in err
    changed(spec, "seeds = 1", "seeds = 3")
    jobs._recorded = jobs._recorded._replace(plan=begun(Path("more"), spec.read_text()).plan)
    assert call("sweep", str(spec))[0] == 0
    assert len(jobs.of("copa-lr0.01-s3-full")) == len(jobs.of("copa-lr0.01-s1-full")) == 1
    assert "seeds = 3" in Path("runs/grid/sweep.toml").read_text()


def test_folder_with_something_else_is_refused(call, spec, tmp_path):
    (tmp_path / "runs" / "grid").mkdir(parents=True)
    (tmp_path / "runs" / "grid" / "letter.txt").write_text("dear")
    code, _, err = call("sweep", str(spec))
    assert code == 2
    assert "accepted: a folder that is new or empty" in err
    assert not (tmp_path / "runs" / "grid" / "sweep.json").exists()


def test_backbone_that_suits_no_training_is_refused_in_its_words(backbone_folder):
    """Loaded in a process of its own, which has torch; what that raises comes back."""
    copa = TaskData("copa", "multiple-choice", (), {})
    with pytest.raises(AptError, match=r"attention: got .*'decoder'.*accepted: .*encoder"):
        count_layers([Asked(str(backbone_folder), copa, AptConfig(attention=("decoder",)))])


@pytest.mark.parametrize("slots", ["0", "5000"])
def test_number_of_slots_is_refused_in_our_words(call, spec, tmp_path, slots):
    code, _, error = call("sweep", str(spec), "--out", str(tmp_path / "grid"), "--slots", slots)
    assert (code, error.count("\n")) == (2, 1)
    assert f"slots: got {slots}; accepted: how many jobs may run at once on the processor, 1 to 1024" in error


def test_gpu_is_refused_where_there_is_none_before_anything_is_written(call, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec.write_text(spec.read_text() + 'device = "cuda"\n')
    code, _, error = call("sweep", str(spec), "--out", str(tmp_path / "grid"))
    assert code == 2
    assert "train of copa: device: got 'cuda'; accepted: auto or cpu. No GPU is visible here" in error
    assert not (tmp_path / "grid").exists()


def test_data_of_a_complete_sweep_is_not_looked_at_where_one_run_stands_for_another(call, spec, jobs, monkeypatch):
    def suggest_uniform(parent: Path, training: Training, budget: Path) -> None:
        budget.parent.mkdir(exist_ok=True)
        budget.write_text(budget_text(BudgetFile(prefix_lengths=[2, 2, 2], total=6)))

    monkeypatch.setattr("apt_core.sweep._suggest", suggest_uniform)
    assert call("sweep", str(spec))[0] == 0
    assert read_sweep(Path("runs/grid")).same_lengths
    monkeypatch.setattr("apt_core.sweep_begin.load_task", None)
    code, _, err = call("sweep", str(spec))
    assert code == 0, err
