"""The retraining benchmark: what it trains, keeps and refuses, and that its page says what its results say."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from apt_core.errors import AptValueError
from apt_core.run_format import read_run_info, update_finished_run
from benchmarks import retraining
from benchmarks.retraining import ARMS, PARTS, PLACES, Chain, Results, page, run_all

COPA = Chain("copa", 1, 15, None)


class Bar:
    """Counts trainings."""

    def __init__(self) -> None:
        self.count = 0

    def update(self) -> None:
        self.count += 1


class Commands:
    """Stands in for the command line: records runs whose metric is a number that their lengths and seed give."""

    def __init__(self, record_run: Callable[..., Path]) -> None:
        self._record_run = record_run
        self.given: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> None:
        self.given.append(words)
        options = dict(pairwise(words))
        if words[0] == "evaluate":
            info = read_run_info(Path(words[1]))
            test = {"accuracy": 0.5 + 0.01 * info.prefix_lengths[0] + 0.001 * info.seed * info.prefix_lengths[1]}
            update_finished_run(Path(words[1]), metrics={**info.metrics, "test": test})
            return
        lengths = tuple(map(int, options.get("--prefix-lengths", "4,4,4").split(",")))
        self._record_run(
            Path(options["--out"]),
            lengths=lengths,
            training={"epochs": int(options["--epochs"])},
            split_sizes={"train": 400, "validation": 100, "test": 500},
        )
        update_finished_run(Path(options["--out"]), seed=int(options["--seed"]))


@pytest.fixture
def commands(tmp_path, monkeypatch, record_run) -> Commands:
    monkeypatch.setattr(retraining, "TABLE", tmp_path / "retraining.md")
    made = Commands(record_run)
    monkeypatch.setattr(retraining, "command", made)
    return made


def do(folder: Path, *chains: Chain, workers: int = 1) -> Results:
    results = Results(folder / "retraining.json")
    results.check(chains)
    run_all(folder / "runs", chains, results, Bar(), workers)
    return results


def test_every_chain_is_a_full_run_and_its_lengths_in_three_ways(tmp_path, commands):
    results = do(tmp_path, COPA)
    runs = {run["part"]: run for run in results.tasks["copa"]["runs"]}
    assert tuple(runs) == PLACES
    for part, divisor in PARTS.items():
        lengths = {arm: runs[f"{part}-{arm}"]["prefix_lengths"] for arm in ARMS}
        assert {sum(each) for each in lengths.values()} == {12 // divisor}
        assert lengths["pruned"] == sorted(lengths["pruned"])  # recorded gates rise with the layer
        assert max(lengths["uniform"]) - min(lengths["uniform"]) <= 1
    trained = [words for words in commands.given if words[0] == "train"]
    assert len(trained) == len(PLACES) == len(commands.given) / 2
    assert len({words[words.index("--out") + 1] for words in trained}) == len(PLACES)


def test_second_call_trains_nothing_even_without_the_run_folders(tmp_path, commands):
    first = do(tmp_path, COPA).tasks
    (tmp_path / "runs").rename(tmp_path / "gone")
    before = len(commands.given)
    assert do(tmp_path, COPA).tasks == first
    assert len(commands.given) == before


def test_other_epochs_are_refused_and_change_nothing(tmp_path, commands):
    do(tmp_path, COPA)
    before, given = (tmp_path / "retraining.json").read_bytes(), len(commands.given)
    with pytest.raises(AptValueError, match=r"epochs: got 'copa=4'; accepted: 15, as in the results\. To measure anew"):
        do(tmp_path, COPA._replace(epochs=4))
    assert ((tmp_path / "retraining.json").read_bytes(), len(commands.given)) == (before, given)


def test_run_with_other_data_than_the_rest_of_its_task_is_refused(tmp_path, commands):
    results = do(tmp_path, COPA)
    run = next((tmp_path / "runs").glob("copa-*-full"))
    update_finished_run(run, split_sizes={"train": 7, "validation": 100, "test": 500})
    with pytest.raises(AptValueError, match="split_sizes: got"):
        results.add(COPA, "full", run)
    assert len(results.tasks["copa"]["runs"]) == len(PLACES)


def test_run_that_another_call_is_training_is_left_alone(tmp_path, commands, record_run):
    run = record_run(tmp_path / "runs" / "copa-e15-s1-full")
    here = read_run_info(run)
    update_finished_run(run, status="running")
    assert here.pid  # of this process, which is alive
    with pytest.raises(AptValueError, match="no other training writes to"):
        do(tmp_path, COPA)
    assert run.exists()


def test_first_failure_keeps_other_chains_from_beginning(tmp_path, commands, monkeypatch):
    def fail(*words: str) -> None:
        commands.given.append(words)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(retraining, "command", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        do(tmp_path, *(COPA._replace(seed=seed) for seed in range(1, 9)))
    assert len(commands.given) == 1


def test_page_has_paired_differences_with_students_interval_and_counts_them(tmp_path, commands):
    tasks = do(tmp_path, *(COPA._replace(seed=seed) for seed in (1, 2, 3))).tasks
    text = page(tasks)
    tests = {part: [run["metrics"]["test"] for run in tasks["copa"]["runs"] if run["part"] == part] for part in PLACES}
    difference = np.subtract(tests["half-pruned"], tests["half-random"])
    low, high = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
    assert f"| {difference.mean():+.3f} ± {(high - low) / 2:.3f} |" in text
    assert "## copa: accuracy, 15 epochs, 3 seeds" in text
    assert text.count("\n| 6 |") == 3
    assert "Of 2 differences on test" in text  # those to uniform lengths do not scatter here


def test_page_is_what_the_results_say():
    """If this fails: ``python -m benchmarks.retraining``, which trains nothing that was trained."""
    assert retraining.TABLE.read_text(encoding="utf-8") == page(json.loads(retraining.RESULTS.read_text()))
