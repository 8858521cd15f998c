"""A task trained with another one's lengths: a small backbone on small files, interrupted and gone on with."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from apt_core.__main__ import app
from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError
from apt_core.evaluate_run import load_run
from apt_core.progress import ProgressBar
from apt_core.retrain import retrain
from apt_core.run_format import read_run_info, snapshot_path, update_finished_run
from apt_core.shares import random_lengths, uniform_lengths
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train
from apt_core.transfer import transfer
from apt_core.transfer_format import Transfer, TransferRun, read_transfer, write_transfer
from apt_core.transfer_plan import TransferJob, lengths_of
from apt_core.transfer_summary import summary

TOTAL = 7


def quiet(line: str) -> None:
    """For what a training says."""


@pytest.fixture(scope="module")
def source(backbone_folder, data_folder, tmp_path_factory) -> Path:
    """A run of WNUT17 with four virtual tokens in each of three layers."""
    job = TrainJob(
        task="wnut17",
        out=tmp_path_factory.mktemp("runs") / "source",
        model=str(backbone_folder),
        apt=AptConfig(num_virtual_tokens=4, prefix_projection=True),
        training=TrainSettings(epochs=1, batch_size=8, learning_rate=0.05, device="cpu"),
        data=DataSource(data_dir=str(data_folder)),
    )
    train(job, say=quiet)
    return job.out


def job_into(out: Path, source: Path, data_folder: Path) -> TransferJob:
    return TransferJob(
        source=source,
        task="copa",
        out=out,
        total=TOTAL,
        seeds=(1, 2),
        data=DataSource(data_dir=str(data_folder)),
        training=TrainSettings(epochs=1, batch_size=8, learning_rate=0.05, device="cpu", shots=16),
        full_length=4,
    )


@pytest.fixture
def job(source, data_folder, tmp_path) -> TransferJob:
    return job_into(tmp_path / "transfer", source, data_folder)


@pytest.fixture(scope="module")
def done(source, data_folder, tmp_path_factory) -> tuple[TransferJob, Transfer, list[str]]:
    """A whole transfer with a warm arm: the job, what came of it, and what was said."""
    job = replace(job_into(tmp_path_factory.mktemp("done") / "transfer", source, data_folder), warm=True)
    said: list[str] = []
    return job, transfer(job, say=said.append), said


def folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


def test_transfer_trains_every_arm_and_its_report_can_be_recomputed_from_the_run_folders(done):
    job, report, said = done
    # the full run of the target, then four arms and the warm one with two seeds, less what is the same
    trained = folders(job.out)
    assert said[0].startswith("11 trainings of 2 optimizer steps")
    assert trained[0] == "own-full"
    assert report == read_transfer(job.out)
    assert report.finished
    assert {(run.arm, run.seed) for run in report.runs} == {
        (arm, seed) for arm in ("source", "own", "uniform", "random", "warm") for seed in (1, 2)
    }
    assert {run.folder for run in report.runs} == set(trained) - {"own-full"}
    for run in report.runs:
        info = read_run_info(job.out / run.folder)
        assert (info.status, info.seed, info.task) == ("finished", run.seed, "copa")
        assert (info.prefix_lengths, sum(run.prefix_lengths)) == (run.prefix_lengths, TOTAL)
        assert info.metrics["validation"]["accuracy"] == run.metric
        assert info.init == ("warm" if run.arm == "warm" else "scratch")
        load_run(job.out / run.folder)
    lengths = {(run.arm, run.seed): tuple(run.prefix_lengths) for run in report.runs}
    for seed in (1, 2):
        assert lengths["source", seed] == lengths["warm", seed] == lengths_of(job.source, TOTAL, "").prefix_lengths
        assert lengths["own", seed] == lengths_of(job.out / "own-full", TOTAL, "").prefix_lengths
        assert lengths["uniform", seed] == (3, 2, 2)
        assert lengths["random", seed] == random_lengths(TOTAL, 3, seed)
    assert read_run_info(job.out / "source-seed1").parent == "source"
    assert read_run_info(job.out / "warm-seed1").parent == "source"
    assert read_run_info(job.out / "uniform-seed1").parent is None
    metrics = {arm: [] for arm in ("source", "random")}
    for run in report.runs:
        if run.arm in metrics:
            metrics[run.arm].append(read_run_info(job.out / run.folder).metrics["validation"]["accuracy"])
    found = {(each.arm, each.other): each for each in summary(report).compared}["source", "random"]
    assert found.difference.mean == pytest.approx(np.mean(np.subtract(metrics["source"], metrics["random"])))


def test_second_call_of_a_finished_transfer_trains_nothing(done):
    job, report, _ = done
    before = {path: path.stat().st_mtime_ns for path in job.out.glob("*/run.json")}
    said = []
    again = transfer(job, say=said.append)
    assert said[0].startswith("0 trainings")
    assert again.runs == report.runs
    assert {path: path.stat().st_mtime_ns for path in job.out.glob("*/run.json")} == before


def test_transfer_goes_on_after_an_interruption_with_what_is_left(job, done, monkeypatch):
    job = replace(job, seeds=(1,))
    steps, real = [], ProgressBar.on_step_end

    def interrupt(bar, args, state, control, **rest):
        steps.append(state.global_step)
        if len(steps) == 6:  # the second step of the third training
            raise KeyboardInterrupt
        return real(bar, args, state, control, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "on_step_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            transfer(job, say=quiet)
    report = read_transfer(job.out)
    assert not report.finished
    assert len({run.folder for run in report.runs}) == 1
    assert "no seed is finished yet" in summary(report).verdict
    finished = job.out / report.runs[0].folder / "run.json"
    stamp = finished.stat().st_mtime_ns
    said = []
    gone_on = transfer(job, say=said.append)
    assert any(line.startswith("resuming") for line in said)
    assert finished.stat().st_mtime_ns == stamp
    assert gone_on.finished
    assert gone_on.runs == [run for run in done[1].runs if run.seed == 1 and run.arm != "warm"]


def test_warm_arm_starts_from_the_sources_values_and_a_head_of_its_own(done):
    job = done[0]
    begun = load_file(snapshot_path(job.out / "warm-seed1", 0))
    ended = load_file(job.source / "adapter" / "adapter_model.safetensors")
    kept = read_run_info(job.out / "warm-seed1").apt_config["kept_tokens"]
    assert [len(tokens) for tokens in kept] == read_run_info(job.out / "warm-seed1").prefix_lengths
    keys = [name for name in begun if name.endswith(".key")]
    assert keys
    for name in keys:
        np.testing.assert_array_equal(begun[name], ended[name][:, kept[int(name.split("layer.")[1][0])]])
    assert begun["classifier.weight"].shape != ended["classifier.weight"].shape


def test_own_run_of_the_target_gives_the_lengths_and_is_not_trained(job, done, tmp_path):
    pruned = tmp_path / "pruned"
    retrain(done[0].out / "own-full", pruned, (1, 0, 6), say=quiet, epochs=1)
    report = transfer(replace(job, own=pruned, out=tmp_path / "other", seeds=(1,)), say=quiet)
    assert (done[1].own, done[1].own_basis) == ("own-full", "gates")
    assert (report.own, report.own_basis) == ("pruned", "lengths")
    assert next(run.prefix_lengths for run in report.runs if run.arm == "own") == [1, 0, 6]
    assert "own-full" not in folders(tmp_path / "other")


def test_lengths_come_from_lengths_that_differ_and_else_from_gates(tmp_path, record_run):
    pruned = record_run(tmp_path / "pruned", steps=3, lengths=(2, 4, 6))
    assert lengths_of(pruned, 6, "source") == ((1, 2, 3), "lengths")
    even = record_run(tmp_path / "even", steps=10, lengths=(4, 4, 4))
    lengths, basis = lengths_of(even, 12, "source")
    assert basis == "gates"
    assert lengths[0] < lengths[1] < lengths[2]  # gates rise with the layer
    bare = record_run(tmp_path / "bare", steps=1, lengths=(4,), apt_config={"token_gate": "none", "layer_scale": False})
    with pytest.raises(AptError, match="says nothing about its layers"):
        lengths_of(bare, 4, "source")


def test_random_lengths_are_the_same_for_the_same_seed():
    assert random_lengths(48, 6, 1) == random_lengths(48, 6, 1) != random_lengths(48, 6, 2)
    assert uniform_lengths(8, 3) == (3, 3, 2)


def nothing_trained(job: TransferJob) -> bool:
    return not job.out.exists() or not folders(job.out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": 0}, "total: got 0; accepted: 1 to 3072 for 3 layers"),
        ({"total": 4000}, "total: got 4000"),
        ({"warm": True, "total": 40}, "warm: got .* virtual tokens in layer 1"),
        ({"task": "boolq"}, r"train.jsonl: no such file"),
        ({"source": Path("missing")}, "not a run folder"),
        ({"own": Path("missing")}, "not a run folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(job, changes, message):
    with pytest.raises(AptError, match=message):
        transfer(replace(job, **changes), say=quiet)
    assert nothing_trained(job)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "other/backbone"}, "a run with the backbone of .*, other/backbone; it has"),
        ({"lengths": (4, 4)}, "a run with the layers of .*, 2; it has 3"),
        ({"task": "wnut17"}, "a run of task copa; this one is of wnut17"),
    ],
)
def test_own_run_that_does_not_compare_is_refused(job, record_run, tmp_path, backbone_folder, fields, message):
    fields = {"model": str(backbone_folder), "task": "copa", "lengths": (4, 4, 4), **fields}
    own = record_run(tmp_path / "own", steps=2, **fields)
    with pytest.raises(AptError, match=message):
        transfer(replace(job, own=own), say=quiet)
    assert nothing_trained(job)


def test_source_of_another_number_of_layers_than_its_backbone_is_refused(job, record_run, tmp_path, backbone_folder):
    source = record_run(tmp_path / "deep", steps=2, lengths=(4,) * 6, model=str(backbone_folder))
    with pytest.raises(AptError, match="3 integers, one per layer of the backbone"):
        transfer(replace(job, source=source), say=quiet)
    assert nothing_trained(job)


def test_unfinished_source_is_refused(job, record_run, tmp_path):
    folder = record_run(tmp_path / "run", steps=2)
    update_finished_run(folder, status="failed")
    with pytest.raises(AptError, match="a finished run; this one is failed"):
        transfer(replace(job, source=folder), say=quiet)


def test_other_settings_in_the_same_folder_are_refused(done):
    job = done[0]
    training = job.training.model_copy(update={"learning_rate": 0.01})
    with pytest.raises(AptError, match=r"was trained with learning_rate 0\.05, now 0\.01"):
        transfer(replace(job, training=training), say=quiet)
    with pytest.raises(AptError, match="holds a transfer with total 7, now 9"):
        transfer(replace(job, total=9, warm=False), say=quiet)


def test_folder_with_something_else_is_refused(job):
    job.out.mkdir()
    (job.out / "letter.txt").write_text("dear")
    with pytest.raises(AptError, match="new or empty"):
        transfer(job, say=quiet)


def made(**metrics: list[float | None]) -> Transfer:
    """A report with one run per arm and seed."""
    runs = [
        TransferRun(arm=arm, seed=seed, folder=f"{arm}-seed{seed}", prefix_lengths=[4, 3], metric=value)
        for arm, column in metrics.items()
        for seed, value in enumerate(column, start=1)
    ]
    seeds = sorted({run.seed for run in runs})
    return Transfer(
        source="s", source_task="rte", source_basis="gates", own="o", own_basis="gates", task="copa", model="m",
        num_layers=2, total=7, seeds=seeds, arms=list(metrics), metric_name="accuracy", greater_is_better=True,
        runs=runs,
    )  # fmt: skip


def test_differences_are_paired_over_seeds_and_agree_with_scipy():
    source, uniform = [0.62, 0.70, 0.58], [0.60, 0.66, 0.55]
    (compared,) = summary(made(source=source, uniform=uniform)).compared
    expected = stats.ttest_rel(source, uniform).confidence_interval(0.95)
    assert (compared.difference.low, compared.difference.high) == (
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )
    assert compared.words.startswith("better than uniform at 3 seeds (+3.00 points, 95% interval +0.52 to +5.48)")
    assert "carry over to copa" in summary(made(source=source, uniform=uniform)).verdict
    assert "do not carry over" in summary(made(source=uniform, uniform=source)).verdict


def test_interval_around_nothing_is_undecided():
    found = summary(made(source=[0.6, 0.7, 0.5], uniform=[0.7, 0.6, 0.5]))
    assert found.compared[0].words.startswith("undecided at 3 seeds")
    assert "may or may not carry over" in found.verdict
    assert "one seed has no interval" in summary(made(source=[0.6], uniform=[0.5])).compared[0].words
    assert "no seed has a finite accuracy in both" in summary(made(source=[None], uniform=[0.5])).compared[0].words


def test_smaller_is_better_where_it_is():
    report = made(source=[10.0, 11.0, 12.5], uniform=[20.0, 22.0, 22.0])
    report = report.model_copy(update={"metric_name": "perplexity", "greater_is_better": False})
    assert summary(report).compared[0].words.startswith("better than uniform at 3 seeds (+10.17 perplexity")


def test_same_lengths_are_said_to_be_nothing_to_compare():
    report = made(source=[0.6, 0.7], uniform=[0.6, 0.7])
    runs = [run.model_copy(update={"folder": f"source-seed{run.seed}"}) for run in report.runs]
    assert "nothing to compare" in summary(report.model_copy(update={"runs": runs})).compared[0].words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(schema_version=9), "Update this program"),
        (lambda content: content.update(runs=7), "runs: got 7"),
        (lambda content: content["runs"][0].update(prefix_lengths=[4, 4]), "2 numbers that sum to 7"),
        (lambda content: content["runs"][0].update(metric="nan"), "metric"),
        (lambda content: content["runs"][0].update(arm="<b>"), "arm"),
        (lambda content: content["runs"].append(content["runs"][0]), "a seed twice"),
        (lambda content: content.update(source="\ud800"), "source"),
        (lambda content: content.update(task="x" * 2000), "task"),
    ],
)
def test_report_of_unknown_origin_is_checked(tmp_path, change, message):
    write_transfer(tmp_path, made(source=[0.5], uniform=[0.5]))
    content = json.loads((tmp_path / "transfer.json").read_text())
    change(content)
    (tmp_path / "transfer.json").write_text(json.dumps(content))
    with pytest.raises(AptError, match=message):
        read_transfer(tmp_path)


def test_report_that_is_a_link_or_no_json_is_refused(tmp_path):
    with pytest.raises(AptError, match=r"holds no transfer.json"):
        read_transfer(tmp_path)
    (tmp_path / "transfer.json").write_text("[")
    with pytest.raises(AptError, match="damaged"):
        read_transfer(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "transfer.json").symlink_to(tmp_path / "transfer.json")
    with pytest.raises(AptError, match="link"):
        read_transfer(tmp_path / "a")


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


def test_command_prints_what_it_found(call, source, data_folder):
    words = ["transfer", str(source), "--task", "copa", "--data-dir", str(data_folder), "--total", "7", "--seeds", "1"]
    words += ["--num-virtual-tokens", "2", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--shots", "8"]
    code, out, err = call(*words, "--json")
    assert code == 0
    assert "trainings of 1 optimizer steps" in err
    result = json.loads(out)
    assert result["out"] == "transfer/source-to-copa-7"
    assert result["transfer"]["command"].startswith("python -m apt_core transfer")
    assert set(result["arms"]) == {"source", "own", "uniform", "random"}
    code, out, _ = call(*words)
    assert code == 0
    assert "source against uniform: " in out
    assert "streamlit run app.py -- --runs transfer/source-to-copa-7" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("transfer missing --task copa --total 8", "missing: not a run folder"),
        ("transfer missing --task chess --total 8", "task: got 'chess'"),
        ("transfer missing --task copa --total 8 --seeds 0", "seeds: got 0; accepted: 1 to 100"),
        ("transfer missing --task copa", "total"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(call, words, message):
    code, out, err = call(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_source_whose_training_diverged_does_not_carry_over_and_is_named():
    uniform = [0.50, 0.52, 0.49, 0.51]
    found = summary(made(source=[0.60, 0.61, 0.60, None], uniform=uniform))
    assert found.compared[0].words.startswith("better than uniform at 3 seeds")
    assert "may or may not carry over" in found.verdict
    assert "Without a finite accuracy, and so in no mean: source seed 4." in found.verdict
