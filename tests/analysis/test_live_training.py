"""What a growing metrics file says, and that a hostile one says nothing."""

from __future__ import annotations

import json
import os

import pytest

from analysis.job_progress import Pace
from analysis.live_training import TAIL_BYTES, logged_by, pace_of
from apt_core.run_format import METRICS_FILE


def write(folder, rows) -> None:
    (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pace_is_that_of_the_last_whole_line_that_has_one(tmp_path):
    rows = [
        {"step": 10, "seconds": 5.5, "loss": 2.0},
        {"step": 20, "seconds": 9.0, "loss": 1.5},
        {"step": 20, "eval_f1": 0.5},
    ]
    write(tmp_path, rows)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 30, "seconds": 1')
    found = logged_by(tmp_path, "f1")
    assert found.pace == Pace(20, 9.0)
    assert found.curves.loss == (2.0, 1.5)
    assert found.curves.metric == (0.5,)


def test_pace_of_a_large_file_is_read_from_its_end(tmp_path):
    rows = [{"step": step, "seconds": step / 2, "loss": 1.0} for step in range(1, 3000)]
    write(tmp_path, rows)
    assert (tmp_path / METRICS_FILE).stat().st_size > 2 * TAIL_BYTES
    assert pace_of(tmp_path) == Pace(2999, 1499.5)


@pytest.mark.parametrize(
    "content",
    ["", "[]\n", "7\n", '{"step": true, "seconds": 1}\n', '{"step": 5, "seconds": NaN}\n', '{"step": 5}\n', "[" * 9000],
)
def test_damaged_file_says_nothing(tmp_path, content):
    (tmp_path / METRICS_FILE).write_text(content)
    assert pace_of(tmp_path) is None


def test_missing_file_link_and_pipe_say_nothing(tmp_path):
    assert logged_by(tmp_path, "f1") == (None, ((), ()))
    write(tmp_path, [{"step": 10, "seconds": 5.0}])
    (tmp_path / METRICS_FILE).rename(tmp_path / "real")
    (tmp_path / METRICS_FILE).symlink_to(tmp_path / "real")
    assert pace_of(tmp_path) is None
    (tmp_path / METRICS_FILE).unlink()
    os.mkfifo(tmp_path / METRICS_FILE)
    assert pace_of(tmp_path) is None
