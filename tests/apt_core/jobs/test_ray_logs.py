"""What a job on a cluster printed, as Ray hands it on."""

from __future__ import annotations

from apt_core.jobs.ray_logs import followed, last_lines_of

BARS = "note: x\n\ntrain:   0%|  | 0/2\ntrain:  50%|# | 1/2 \ntrain: 100%|##| 2/2\n\nevaluate: 100%|##| 1/1\ndone\n"


def test_bar_has_its_last_state_only():
    assert last_lines_of(BARS, 200).split("\n") == ["note: x", "train: 100%|##| 2/2", "evaluate: 100%|##| 1/1", "done"]


def test_lines_that_are_no_bar_stay():
    text = "5%|\n\na\n\nb\na: 10%|x\nc\na: 20%|x\n"
    assert last_lines_of(text, 200).split("\n") == ["5%|", "", "a", "", "b", "a: 10%|x", "c", "a: 20%|x"]


def test_last_lines_are_counted_after_that():
    assert last_lines_of(BARS, 2) == "evaluate: 100%|##| 1/1\ndone"
    assert last_lines_of("", 5) == ""


def test_long_log_is_cut_at_a_line():
    text = "".join(f"{number:015}\n" for number in range(20_000))
    assert last_lines_of(text, 10**6).split("\n") == [f"{number:015}" for number in range(20_000 - 2**14 + 1, 20_000)]


def test_secrets_are_left_out_also_where_they_come_in_parts(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "very-secret-word")
    assert last_lines_of("a very-secret-word b", 5) == "a *** b"
    parts = ["one\ntwo very-se", "cret-word", " b\nth", "ree"]
    assert list(followed(iter(parts))) == ["one\n", "two *** b\n", "three"]


def test_followed_text_is_whole():
    parts = ["a", "b\nc", "", "\n", "x" * 2**21, "end"]
    assert "".join(followed(iter(parts))) == "".join(parts)
