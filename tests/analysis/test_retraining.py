"""From the Retrain form to trainings."""

from __future__ import annotations

import pytest

from analysis.job_book import Standing
from analysis.retraining import MAX_SEEDS, check_new, parse_seeds, plan
from apt_core.errors import AptError
from apt_core.jobs import Job, JobReport


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1", (1,)),
        (" 3, 1,2 ", (3, 1, 2)),
        ("1-3", (1, 2, 3)),
        ("7, 1 - 2", (7, 1, 2)),
        ("0,4294967295", (0, 4294967295)),
        (f"1-{MAX_SEEDS}", tuple(range(1, MAX_SEEDS + 1))),
    ],
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "one",
        "-1",
        "1.5",
        "3-1",
        "1,1",
        "1-3,2",
        "4294967296",
        f"0-{MAX_SEEDS}",
        "1-4000000000",
        "1--2",
        "٣",
    ],
)
def test_seeds_that_are_none_are_refused_in_words(text):
    with pytest.raises(
        AptError, match=r"seeds: got .* different whole numbers from 0 to 4294967295, such as 1,2,3 or 1-3"
    ):
        parse_seeds(text)


def names(planned) -> list[str]:
    return [each.out.name for each in planned]


def test_every_seed_is_a_training_with_a_name_and_a_command_of_its_own(tmp_path):
    first, second = plan(tmp_path / "a", "pruned", [4, 0, 8], (1, 2), ["--epochs", "3"], tmp_path)
    assert names([first, second]) == ["a-pruned12-s1", "a-pruned12-s2"]
    assert second.command == (
        f"python -m apt_core retrain {tmp_path / 'a'} --prefix-lengths 4,0,8 --seed 2 --epochs 3 "
        f"--out {tmp_path / 'a-pruned12-s2'}"
    )


def test_one_seed_has_the_next_number(tmp_path):
    (tmp_path / "a-pruned12-1").mkdir()
    assert names(plan(tmp_path / "a", "pruned", [12], (5,), [], tmp_path)) == ["a-pruned12-2"]


def test_names_that_folders_or_jobs_have_are_not_taken_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-uniform6-s1").mkdir()
    taken = {tmp_path / "a-uniform6-s2", tmp_path / "a-uniform6-s2-2"}
    (root,) = {tmp_path}
    assert names(plan(root / "a", "uniform", [3, 3], (1, 2, 3), [], root, taken)) == [
        "a-uniform6-s1-2",
        "a-uniform6-s2-3",
        "a-uniform6-s3",
    ]
    relative = plan(root / "a", "uniform", [3, 3], (2,), [], root.relative_to(tmp_path), {tmp_path / "a-uniform6-1"})
    assert names(relative) == ["a-uniform6-2"]


@pytest.mark.parametrize(("state", "refused"), [("queued", True), ("running", True), ("cancelled", False)])
def test_training_that_is_at_work_already_is_refused(tmp_path, state, refused):
    (before,) = plan(tmp_path / "a", "pruned", [4, 4], (2,), ["--epochs", "3"], tmp_path)
    standing = Standing(Job("0007-b", before.arguments, str(before.out), ""), JobReport(state))
    again = plan(tmp_path / "a", "pruned", [4, 4], (1, 2), ["--epochs", "3"], tmp_path, {before.out})
    if refused:
        with pytest.raises(AptError, match=r"seeds: got 2, which job 0007-b trains just so; .* Nothing was queued"):
            check_new(again, [standing])
    else:
        check_new(again, [standing])
    check_new(plan(tmp_path / "a", "pruned", [4, 4], (2,), ["--epochs", "4"], tmp_path), [standing])
