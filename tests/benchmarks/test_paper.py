"""The experiment with small backbones in this process; and once with real jobs, killed and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from apt_core.__main__ import app as apt
from apt_core.command_line import run_typer
from apt_core.config import OFFLINE_BACKBONE
from apt_core.errors import AptError
from apt_core.evaluate_run import load_run
from apt_core.gate_log import GateLog
from apt_core.jobs.interface import Job, JobState
from apt_core.jobs.local import LocalJobs
from apt_core.run_format import read_run_info, update_finished_run
from apt_core.settled import settled_mass
from benchmarks import paper, paper_runs
from benchmarks.fine_tuning import app as fine_tuning
from benchmarks.paper_methods import METHODS as METHODS_BY_NAME
from benchmarks.paper_methods import star_lengths
from benchmarks.paper_page import page
from benchmarks.paper_plan import Training
from benchmarks.paper_results import Grid, Measured, Results
from benchmarks.paper_runs import Places
from benchmarks.paper_settings import Setting
from benchmarks.results_file import alone
from tests.benchmarks.conftest import InlineJobs, make_info, make_measured, make_setting

DEADLINE_SECONDS = 900
"""far more than anything here takes on a busy machine"""
ROOT = Path(__file__).parent.parent.parent
METHODS = "fine-tuning,apt,pt2-star,pt2-plus"


@pytest.fixture(scope="module")
def inline() -> Places:
    return Places(
        InlineJobs(lambda words: apt(words, standalone_mode=False)),
        InlineJobs(lambda words: fine_tuning(words, standalone_mode=False)),
    )


def words_for(folder: Path, backbone: Path, data: Path, **changed: str) -> list[str]:
    """A command line; an option that is changed to nothing is left out."""
    options = {
        "tasks": "copa", "model": str(backbone), "data-dir": str(data), "methods": METHODS, "shots": "16",
        "seeds": "2", "grid-seeds": "1", "learning-rates": "0.01,0.05", "num-virtual-tokens": "4",
        "epochs": "copa/full=1" if changed.get("shots") == "full" else "copa/16=2",
        "device": "cpu", "runs": str(folder / "runs"), "results": str(folder / "paper.json"), **changed,
    }  # fmt: skip
    return ["--debug", *(word for name, value in options.items() if value for word in (f"--{name}", value))]


def call(monkeypatch, jobs: Places, words: list[str]) -> int:
    """The command with jobs that are done at once; returns its exit code."""
    monkeypatch.setattr(paper, "places", lambda *_: jobs)
    monkeypatch.setattr(paper, "do_all", partial(paper_runs.do_all, look_seconds=0))
    monkeypatch.setattr(sys, "argv", ["paper", *words])
    with pytest.raises(SystemExit) as ending:
        run_typer(paper.app)
    return ending.value.code


@pytest.fixture(scope="module")
def done(backbone_folder, data_folder, tmp_path_factory, inline) -> Path:
    """A whole experiment: four methods, 16 examples, two seeds, two learning rates."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call(monkeypatch, inline, words_for(folder, backbone_folder, data_folder)) == 0
    return folder


def run_of(folder: Path, setting: Setting, measured: Measured) -> Path:
    """Where a training was made."""
    own = METHODS_BY_NAME[measured.method].lengths != "equal"
    lengths = tuple(measured.prefix_lengths) if own else None
    training = Training(setting, measured.method, measured.learning_rate, measured.seed, lengths, measured.tested)
    return folder / "runs" / setting.slug / training.name


def saturated_part(log: GateLog) -> np.ndarray:
    last = log.at(int(log.steps[-1])).token_gate
    return ((last < 0.02) | (last > 0.98)).mean(axis=1)


def test_variant_with_slow_gates_trains_them_with_a_tenth_of_the_rate(
    backbone_folder, data_folder, tmp_path, inline, monkeypatch
):
    words = words_for(
        tmp_path, backbone_folder, data_folder, methods="apt-slow-gates", seeds="1", **{"learning-rates": "0.03"}
    )
    assert call(monkeypatch, inline, words) == 0
    [table] = Results(tmp_path / "paper.json").tables
    [measured] = table.trainings
    info = read_run_info(run_of(tmp_path, table.setting, measured))
    assert [info.training[name] for name in ("learning_rate", "gate_learning_rate")] == [0.03, 0.003]
    assert measured.tested
    assert "| APT, slow gates |" in (tmp_path / "paper.md").read_text(encoding="utf-8")


def test_experiment_keeps_what_its_runs_came_to(done):
    [table] = Results(done / "paper.json").tables
    assert (table.setting.shots, table.setting.batch_size, table.setting.epochs) == (16, 4, 2)
    assert table.split_sizes == {"train": 16, "validation": 12, "test": 12}
    assert len(table.trainings) == 4 * 3
    for each in table.trainings:
        assert each.tested == (each.learning_rate == table.chosen[each.method])
        if each.method == "fine-tuning":
            continue
        run = run_of(done, table.setting, each)
        info = read_run_info(run)
        assert (info.seed, info.prefix_lengths) == (each.seed, each.prefix_lengths)
        settings = [info.training[name] for name in ("learning_rate", "shots", "epochs", "batch_size")]
        assert settings == [each.learning_rate, 16, 2, 4]
        assert info.metrics["validation"]["accuracy"] == pytest.approx(each.validation, abs=1e-6)
        assert ("test" in info.metrics) == each.tested
        gates = info.apt_config["token_gate"], info.apt_config["layer_scale"]
        assert gates == (("hidden", True) if each.method == "apt" else ("none", False))
        if each.method == "apt":
            rows = [json.loads(line)["layer_gates"] for line in (run / "predictions.jsonl").read_text().splitlines()]
            assert each.gate_spread == pytest.approx(np.std(rows, axis=0), abs=1e-6)
            assert each.gate_spread[0] < 1e-6  # the first position of every text is the same token
            assert each.gate_saturation == pytest.approx(saturated_part(GateLog(run / "gates")), abs=1e-6)
            assert each.gate_mass == pytest.approx(settled_mass(GateLog(run / "gates")), abs=1e-6)


def test_lengths_of_star_and_plus_follow_from_the_runs_of_apt(done):
    [table] = Results(done / "paper.json").tables
    for seed, run in table.final("pt2-star").items():
        assert tuple(run.prefix_lengths) == star_lengths(table.final("apt")[seed].gate_mass, 12)
    plus = table.final("pt2-plus")[1]
    assert abs(plus.parameters - table.final("apt")[1].parameters) <= min(plus.token_sizes) / 2


def test_runs_of_all_weights_are_removed_once_they_are_needed_no_more(done):
    assert not list((done / "runs").glob("*/fine-tuning-*"))
    load_run(next((done / "runs").glob("*/apt-*")))


def test_page_is_made_from_the_results_alone(done):
    text = (done / "paper.md").read_text(encoding="utf-8")
    assert text == page(Results(done / "paper.json").tables, "paper.json")
    assert "copa, 16 examples in all" in text


def test_second_call_trains_nothing_even_without_the_run_folders(
    done, backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys
):
    shutil.copy(done / "paper.json", tmp_path / "paper.json")
    before = len(inline.prefixes.submitted), len(inline.all_weights.submitted)
    assert call(monkeypatch, inline, words_for(tmp_path, backbone_folder, data_folder)) == 0
    assert (len(inline.prefixes.submitted), len(inline.all_weights.submitted)) == before
    assert "in all 0 trainings" in capsys.readouterr().err
    assert (tmp_path / "paper.md").read_text() == (done / "paper.md").read_text()


def test_run_that_lacks_its_test_is_trained_again_where_its_folder_is_gone(
    done, backbone_folder, data_folder, tmp_path, inline, monkeypatch
):
    content = json.loads((done / "paper.json").read_text())
    lost = next(each for each in content["tables"][0]["trainings"] if each["method"] == "pt2-plus" and each["tested"])
    lost["tested"], lost["test"] = False, None
    (tmp_path / "paper.json").write_text(json.dumps(content))
    before = len(inline.prefixes.submitted)
    assert call(monkeypatch, inline, words_for(tmp_path, backbone_folder, data_folder)) == 0
    assert [words[0] for words in inline.prefixes.submitted[before:]] == ["train", "evaluate"]


def test_training_that_fails_ends_the_command_with_its_log_and_is_tried_again(
    backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys
):
    def fail(words: list[str]) -> None:
        raise RuntimeError("out of luck")

    words = words_for(
        tmp_path, backbone_folder, data_folder, methods="pt2", shots="full", seeds="1", **{"learning-rates": "0.01"}
    )
    broken = Places(InlineJobs(fail), InlineJobs(fail))
    assert call(monkeypatch, broken, words) == 1
    assert "out of luck" in capsys.readouterr().err
    assert call(monkeypatch, inline, words) == 0
    assert len(Results(tmp_path / "paper.json").tables[0].trainings) == 1


def test_interrupted_run_is_gone_on_with_and_not_begun_again(
    backbone_folder, data_folder, tmp_path, inline, monkeypatch
):
    words = words_for(
        tmp_path, backbone_folder, data_folder, methods="pt2", shots="full", seeds="1", **{"learning-rates": "0.01"}
    )
    assert call(monkeypatch, inline, words) == 0
    [run] = (tmp_path / "runs").glob("*/pt2-*")
    begun = update_finished_run(run, status="interrupted", metrics={}).created_at
    (tmp_path / "paper.json").unlink()
    before = len(inline.prefixes.submitted)
    assert call(monkeypatch, inline, words) == 0
    submitted = inline.prefixes.submitted[before:]
    assert [(words[0], "--resume" in words) for words in submitted] == [("train", True), ("evaluate", False)]
    assert read_run_info(run).created_at == begun
    assert Results(tmp_path / "paper.json").tables[0].trainings[0].tested


def test_dry_run_says_the_costs_and_starts_nothing(backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys):
    before = len(inline.prefixes.submitted)
    words = words_for(tmp_path, backbone_folder, data_folder, shots="full")
    assert call(monkeypatch, inline, [*words, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "copa, all examples, epochs: 1: 12 trainings, 8 measurements on test, about" in said
    assert "a short measurement now" in said
    assert len(inline.prefixes.submitted) == before
    assert not (tmp_path / "paper.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": "nothing"}, "tasks: got 'nothing'"),
        ({"tasks": "copa:"}, "tasks: got 'copa:'"),
        ({"methods": "pt2-star"}, "methods: got 'pt2-star'; accepted: apt with it"),
        ({"shots": "many"}, "shots: got 'many'"),
        ({"shots": "1000"}, "shots: got 1000; accepted: at most 40"),
        ({"learning-rates": "0.1,x"}, "learning-rates: got 'x'"),
        ({"epochs": "copa=0"}, "epochs: got 'copa=0'"),
        ({"epochs": "copa=2"}, "epochs: got 'copa=2'; accepted: a number for copa/16"),
        ({"max-steps": "2", "results": str(paper.RESULTS)}, "accepted: another file with --max-steps"),
        ({"grid-seeds": "3"}, "grid-seeds: got 3"),
    ],
)
def test_bad_options_are_refused_in_one_line_before_anything_starts(
    backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys, changed, message
):
    words = words_for(tmp_path, backbone_folder, data_folder, **changed)[1:]
    assert call(monkeypatch, inline, words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_second_call_at_the_same_time_is_refused(backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys):
    words = words_for(tmp_path, backbone_folder, data_folder)[1:]
    for field, path in (("runs", tmp_path / "runs" / paper.DRIVER), ("results", tmp_path / "paper.json")):
        with alone(path, field):
            assert call(monkeypatch, inline, words) == 2
        said = capsys.readouterr().err
        assert f"{field}: got" in said
        assert "a file that no other call of this command works on" in said
    assert not (tmp_path / "paper.json").exists()


def test_cluster_has_its_jobs_on_a_shared_disk_and_no_program_for_all_weights(tmp_path):
    where = paper_runs.places(tmp_path, "ray", "http://127.0.0.1:1", 2)
    assert (type(where.prefixes).__name__, where.prefixes.address) == ("RayJobs", "http://127.0.0.1:1")
    assert isinstance(where.all_weights, LocalJobs)  # nodes have no benchmarks


def test_other_grid_for_some_methods_of_a_table_is_refused(
    done, backbone_folder, data_folder, tmp_path, inline, monkeypatch, capsys
):
    shutil.copy(done / "paper.json", tmp_path / "paper.json")
    one = words_for(tmp_path, backbone_folder, data_folder, methods="apt,pt2-star", **{"learning-rates": "0.01"})
    assert call(monkeypatch, inline, one[1:]) == 2
    said = capsys.readouterr().err
    assert "learning-rates: got '0.01 on 1 seeds'; accepted: 0.01,0.05 on 1 seeds, which fine-tuning of copa" in said
    assert (tmp_path / "paper.json").read_bytes() == (done / "paper.json").read_bytes()
    one = words_for(tmp_path, backbone_folder, data_folder, **{"learning-rates": "0.01"})
    assert call(monkeypatch, inline, one) == 0
    assert set(Results(tmp_path / "paper.json").tables[0].grids.values()) == {Grid((0.01,), 1)}


def test_run_that_is_not_what_was_asked_for_is_made_again(
    done, backbone_folder, data_folder, tmp_path, inline, monkeypatch
):
    """As one that somebody has retried with other settings."""
    shutil.copytree(done / "runs", tmp_path / "runs")
    [run] = (tmp_path / "runs").glob("*/apt-lr0.01-s1")
    update_finished_run(run, training={**read_run_info(run).training, "epochs": 7})
    before = len(inline.prefixes.submitted)
    words = words_for(tmp_path, backbone_folder, data_folder, methods="apt")
    assert call(monkeypatch, inline, words) == 0
    trained = [each[each.index("--out") + 1] for each in inline.prefixes.submitted[before:] if each[0] == "train"]
    assert trained == [str(run)]


class Unreliable(InlineJobs):
    """The first look at every job fails, and so does every first try of a training, whose node is gone."""

    def __init__(self, program: Callable[[list[str]], object]) -> None:
        super().__init__(program)
        self.asked: set[str] = set()
        self.tried: set[str] = set()

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        if str(run_folder) not in self.tried:
            self.tried.add(str(run_folder))
            job = Job(str(len(self.submitted)), list(arguments), str(run_folder), "")
            self.submitted.append(list(arguments))
            self._states[job.id], self._logs[job.id] = "lost", ""
            return job
        return super().submit(arguments, run_folder)

    def status(self, job_id: str) -> JobState:
        if job_id not in self.asked:
            self.asked.add(job_id)
            raise AptError("the cluster does not answer")
        return super().status(job_id)


def test_cluster_that_does_not_answer_once_and_a_node_that_is_lost_end_nothing(
    backbone_folder, data_folder, tmp_path, inline, monkeypatch
):
    jobs = Unreliable(lambda words: apt(words, standalone_mode=False))
    words = words_for(
        tmp_path, backbone_folder, data_folder, methods="pt2", shots="full", seeds="1", **{"learning-rates": "0.01"}
    )
    assert call(monkeypatch, Places(jobs, inline.all_weights), words) == 0
    assert [each[0] for each in jobs.submitted] == ["train", "train", "evaluate"]
    assert Results(tmp_path / "paper.json").tables[0].trainings[0].tested


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


@pytest.mark.slow
def test_killed_experiment_goes_on_with_its_jobs_and_trains_nothing_twice(data_folder, tmp_path):
    """The real command with the offline backbone on a small COPA: its driver is killed while a training runs."""
    results, runs = tmp_path / "paper.json", tmp_path / "runs"
    command = [
        sys.executable, "-m", "benchmarks.paper", "--tasks", "copa", "--data-dir", str(data_folder), "--methods",
        "fine-tuning,apt", "--shots", "full", "--seeds", "1", "--max-steps", "5", "--max-length", "16",
        "--learning-rates", "1e-2", "--device", "cpu", "--runs", str(runs), "--results", str(results),
    ]  # fmt: skip
    few = make_setting(model=OFFLINE_BACKBONE, task="copa", shots=16, per_class=16, max_length=16)
    earlier = Training(few, "pt2", 1e-2, 1, None, True)
    Results(results).add(few, make_measured(earlier, 0.5, 0.5), make_info(train=16))  # its speed is told, not measured
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    jobs = LocalJobs(runs / ".jobs")
    try:
        wait_for(lambda: driver.poll() is not None or any(jobs.status(job.id) == "running" for job in jobs.list()))
    finally:
        driver.send_signal(signal.SIGKILL)
        said = driver.communicate()[1]
    assert driver.returncode == -signal.SIGKILL, said
    assert "in all 2 trainings, about" in said
    assert "earlier trainings of this experiment" in said
    assert len(Results(results).tables) == 1
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert again.returncode == 0, again.stderr
    before, table = Results(results).tables
    assert (before.setting, len(before.trainings)) == (few, 1)
    assert {each.method: each.tested for each in table.trainings} == {"apt": True, "fine-tuning": True}
    assert table.split_sizes == {"train": 40, "validation": 12, "test": 12}
    assert table.setting.max_steps == 5
    words = [job.arguments[0] for job in jobs.list()]
    assert sorted(words) == ["evaluate", "evaluate", "train", "train"]
    assert results.with_suffix(".md").read_text(encoding="utf-8") == page([before, table], "paper.json")


def test_page_of_the_results_is_what_they_say():
    """If this fails: ``python -m benchmarks.paper``, with the words that it was called with."""
    written = page(Results(paper.RESULTS).tables, paper.RESULTS.relative_to(paper.ROOT).as_posix())
    assert paper.PAGE.read_text(encoding="utf-8") == written
