"""The reader of the gate log: exact rows, traces and ranges, live refresh, and damaged or hostile shards."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_core.errors import AptValueError
from apt_core.gate_log import GateLog
from apt_core.gate_shard import Shard
from apt_core.gate_writer import GateLogWriter
from tests.apt_core.gate_rows import closed_log, row, written

LENGTHS = (3, 0, 2)


@pytest.fixture(name="log", scope="module")
def log_fixture(tmp_path_factory) -> GateLog:
    """600 steps in three shards."""
    return closed_log(tmp_path_factory.mktemp("gates"), 600)


def test_empty_folder_is_an_empty_log(tmp_path):
    log = GateLog(tmp_path / "gates")
    assert len(log) == 0
    assert log.read(["token_gate"])["token_gate"].size == 0


def test_at_an_unrecorded_step_raises(tmp_path):
    log = closed_log(tmp_path, 3)
    for step in (0, 4):
        with pytest.raises(AptValueError, match=f"step: got {step}; accepted: a recorded step, 1 to 3"):
            log.at(step)


def test_at_gives_the_row_of_that_step(log):
    for step in (1, 255, 256, 257, 600):
        found = log.at(step)
        assert found.step == step
        for received, expected in zip(found[1:], row(step), strict=True):
            np.testing.assert_array_equal(received, expected)


def test_log_says_what_was_recorded(log):
    assert (log.num_layers, log.num_virtual_tokens, log.prefix_lengths) == (3, 3, LENGTHS)
    assert (log.record_every, log.record_dtype, len(log)) == (1, "float32", 600)


@settings(max_examples=40)
@given(indices=st.lists(st.integers(-600, 599), max_size=30))
def test_rows_come_in_the_order_given(log, indices):
    columns = log.rows(indices)
    assert columns["layer_scale"].shape == (len(indices), 3)
    for place, index in enumerate(indices):
        for name, expected in zip(columns, row(index % 600 + 1), strict=True):
            np.testing.assert_array_equal(columns[name][place], expected)


@settings(max_examples=40)
@given(start=st.integers(-700, 700), stop=st.none() | st.integers(-700, 700))
def test_read_of_a_range_is_that_part_of_everything(log, start, stop):
    whole, part = log.read(), log.read(["layer_scale", "token_gate"], start, stop)
    assert list(part) == ["layer_scale", "token_gate"]
    for name, column in part.items():
        np.testing.assert_array_equal(column, whole[name][start:stop])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_trace_is_a_column_of_everything(tmp_path, dtype):
    log = closed_log(tmp_path, 300, record_dtype=dtype)
    tokens = [(2, 1), (0, 0), (1, 2), (2, 1)]
    traces, whole = log.trace(tokens, ["token_gate", "token_gate_std", "layer_scale"]), log.read()
    for place, (layer, token) in enumerate(tokens):
        for name in ("token_gate", "token_gate_std"):
            np.testing.assert_array_equal(traces[name][:, place], whole[name][:, layer, token])
        np.testing.assert_array_equal(traces["layer_scale"][:, place], whole["layer_scale"][:, layer])
    assert {array.dtype for array in traces.values()} == {np.dtype(np.float32)}


def test_trace_of_no_token_and_of_an_empty_log(log, tmp_path):
    assert log.trace([])["token_gate"].shape == (600, 0)
    assert GateLog(tmp_path).trace([])["layer_scale"].shape == (0, 0)


def test_trace_does_not_load_the_run(tmp_path):
    lengths = (64,) * 8
    log = closed_log(tmp_path, 520, lengths)
    tracemalloc.start()
    log.trace([(7, 63)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda log: log.trace([(3, 0)]), r"token: got \(3, 0\); accepted: layers 0 to 2, tokens 0 to 2"),
        (lambda log: log.trace([(0, -1)]), "token: got"),
        (lambda log: log.rows([600]), "index: got 600; accepted: a place among the 600 recorded steps"),
        (lambda log: log.rows([-601]), "index: got -601"),
        (lambda log: log.read(["gate"]), "names: got 'gate'; accepted: token_gate, token_gate_std, layer_scale"),
    ],
)
def test_questions_outside_the_log_raise(log, ask, message):
    with pytest.raises(AptValueError, match=message):
        ask(log)


@given(at_most=st.integers(1, 200_000), names=st.sampled_from([("token_gate",), ("layer_scale", "token_gate_std")]))
def test_thinned_steps_fit_and_keep_both_ends(log, at_most, names):
    chosen = log.thinned(at_most, names)
    assert (chosen[0], chosen[-1]) == (0, 599)
    gaps = np.diff(chosen)
    assert gaps.max() - gaps.min() <= 1
    assert len(chosen) == 2 or sum(array.nbytes for array in log.rows(chosen, names).values()) <= at_most


def test_thinned_keeps_every_step_where_all_fit(log, tmp_path):
    assert log.thinned(2**30).tolist() == list(range(600))
    assert GateLog(tmp_path).thinned(100).size == 0


def test_refresh_opens_only_what_changed(tmp_path, monkeypatch):
    writer = written(tmp_path, 600)
    writer.flush()
    first = GateLog(tmp_path)
    for step in range(601, 611):
        writer.append(step, *row(step))
    writer.close()
    opened = []
    reading = Shard.open.__func__
    monkeypatch.setattr(Shard, "open", classmethod(lambda cls, path: opened.append(path.name) or reading(cls, path)))
    second = GateLog(tmp_path, first)
    assert opened == ["gates-00000513.safetensors"]
    assert (len(first), len(second)) == (600, 610)
    np.testing.assert_array_equal(second.read()["token_gate"], GateLog(tmp_path).read()["token_gate"])


def test_log_stays_readable_while_its_tail_grows(tmp_path):
    writer = written(tmp_path, 300)
    writer.flush()
    log = GateLog(tmp_path)
    for step in range(301, 700):
        writer.append(step, *row(step))
    writer.close()
    assert len(log) == 300
    np.testing.assert_array_equal(log.read()["token_gate"], GateLog(tmp_path).read(stop=300)["token_gate"])
    np.testing.assert_array_equal(log.at(299).token_gate, row(299)[0])
    assert log.trace([(0, 1)])["token_gate"].shape == (300, 1)


@pytest.mark.parametrize("change", ["removed", "resumed"])
@pytest.mark.parametrize("ask", [lambda log: log.at(300), lambda log: log.read(), lambda log: log.trace([(0, 0)])])
def test_shard_that_went_away_raises_and_says_so(tmp_path, change, ask):
    log = closed_log(tmp_path, 300)
    if change == "removed":
        (tmp_path / "gates-00000257.safetensors").unlink()
    else:
        GateLogWriter(tmp_path, LENGTHS, keep_until=260).close()
    with pytest.raises(AptValueError, match=r"gates-00000257.safetensors: was removed or replaced .* Load it again"):
        ask(log)
    np.testing.assert_array_equal(log.at(256).token_gate, row(256)[0])


def test_readers_of_a_growing_log_never_see_damage(tmp_path):
    """Two readers, one with refresh; every row they see is whole, and the log never shrinks."""
    done = threading.Event()
    problems: list[str] = []
    looks = []

    def look(refresh: bool) -> None:
        log, seen = None, 0
        try:
            while not done.is_set():
                log = GateLog(tmp_path, log if refresh else None)
                if len(log) < seen:
                    problems.append(f"{len(log)} steps after {seen}")
                seen = len(log)
                if seen:
                    np.testing.assert_array_equal(log.at(seen).token_gate, row(seen)[0])
                    assert log.trace([(0, 0)])["token_gate"].shape == (seen, 1)
                looks.append(seen)
        except Exception as problem:
            problems.append(repr(problem))

    readers = [threading.Thread(target=look, args=(refresh,)) for refresh in (True, False)]
    for reader in readers:
        reader.start()
    written(tmp_path, 1500).close()
    done.set()
    for reader in readers:
        reader.join(20)
    assert not problems
    assert looks


def test_values_that_are_not_finite_are_returned(tmp_path):
    writer = GateLogWriter(tmp_path, (2,))
    writer.append(1, np.array([[np.nan, np.inf]]), np.zeros((1, 2)), np.array([-np.inf]))
    writer.close()
    found = GateLog(tmp_path).at(1)
    np.testing.assert_array_equal(found.token_gate, [[np.nan, np.inf]])
    np.testing.assert_array_equal(found.layer_scale, [-np.inf])
