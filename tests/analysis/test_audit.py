"""The verdict on simulated runs whose truth is known, and what is said of missing, old and broken measures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.audit import Audit, audit, audit_run, command_for_more, siblings_of
from analysis.runs import Run
from analysis.verdict import CARE, DO_NOT, FOLLOW, THRESHOLDS
from apt_core.errors import AptValueError
from apt_core.gate_log import GateLog
from apt_core.gate_writer import GateLogWriter
from apt_core.measure_format import IMPORTANCES, MEASURES_FILE, Measures, Point, write_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER, GATES_FOLDER, update_finished_run
from tests.analysis.simulated_measures import layered_effects, layers_shuffled, shuffled, simulate


@pytest.fixture(scope="module")
def log_of(tmp_path_factory):
    """Writes a log of 40 steps in which the weights grow to those given [L][P]."""

    def write(weights: list[np.ndarray], grown: bool = True) -> GateLog:
        folder = tmp_path_factory.mktemp("log") / GATES_FOLDER
        present = np.arange(max(map(len, weights))) < np.array([len(layer) for layer in weights])[:, None]
        final = np.full(present.shape, np.nan)
        final[present] = np.concatenate(weights) / (2 * max(layer.max(initial=0) for layer in weights))
        writer = GateLogWriter(folder, [len(layer) for layer in weights])
        for step in range(1, 41):
            part = step / 40 if grown else 1.0
            writer.append(step, final * part, np.where(present, 0.01, np.nan), np.where(present.any(axis=1), 1, np.nan))
        writer.close()
        return GateLog(folder)

    return write


def levels(found: Audit) -> dict[str, str]:
    return {check.name: check.level for check in found.checks}


def test_gates_in_the_right_order_are_followed(log_of):
    effects = layered_effects(0)
    found = audit(simulate(effects), log_of(effects))
    assert (found.verdict, found.use, found.headline) == (FOLLOW, "gate", "Follow the gates.")
    assert set(levels(found).values()) == {"good"}
    assert found.numbers["orders"]["gate"]["over_random"]["low"] > 0
    assert "Other seeds" in found.not_measured[-1]


def test_shuffled_gates_give_way_to_the_effect_that_is_right(log_of):
    effects = layered_effects(0)
    gates = shuffled(effects, 1)
    found = audit(simulate(effects, {"gate": gates, "norm": gates, "attention": gates}), log_of(gates))
    assert (found.verdict, found.use) == (DO_NOT, "effect")
    assert found.headline == "Do not follow the gates. Use first-order effect."


def test_uniform_where_no_importance_is_right(log_of):
    effects = layered_effects(0)
    wrong = {name: shuffled(effects, 1) for name in IMPORTANCES}
    found = audit(simulate(effects, wrong), log_of(wrong["gate"]))
    assert (found.verdict, found.use) == (DO_NOT, "uniform")
    assert found.headline.endswith("Use uniform lengths.")


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_gates_opposite_to_the_truth_are_never_followed_even_with_care(seed):
    effects = layered_effects(seed)
    found = audit(simulate(effects, {"gate": [effects[0].max() + 1 - layer for layer in effects]}, seed=seed), None)
    assert found.verdict == DO_NOT
    assert found.use != "gate"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shuffle", "tokens", "most_with_care"),
    [(shuffled, False, 20), (layers_shuffled, False, 50), (layers_shuffled, True, 50)],
)
def test_shuffled_gates_are_rarely_followed(log_of, shuffle, tokens, most_with_care):
    """Of 200 shuffles at most a twentieth may be called right.

    An order of whole layers that is better than random orders of tokens by luck is better in this run: it may be called
    right with care. The gate log says nothing against the shuffled order: it is given the same gates.
    """
    verdicts = []
    for seed in range(200):
        effects = layered_effects(seed)
        gates = shuffle(effects, seed + 1)
        measures = simulate(effects, {"gate": gates}, num_examples=60, tokens=tokens, seed=seed)
        verdicts.append(audit(measures, log_of(gates)).verdict)
    assert verdicts.count(FOLLOW) <= 10
    assert verdicts.count(CARE) <= most_with_care


def test_importances_shuffled_after_measuring_are_not_those_recorded(log_of):
    effects = layered_effects(0)
    measures = simulate(effects)
    measures.importance["gate"] = [layer.tolist() for layer in shuffled(effects, 3)]
    found = audit(measures, log_of(effects))
    assert found.verdict == DO_NOT
    assert levels(found)["same gates"] == "weak"


def test_prefix_without_effect_is_said_first(log_of):
    effects = layered_effects(0)
    measures = simulate([layer * 0 for layer in effects], {"gate": effects}, noise=0.01)
    found = audit(measures, log_of(effects))
    assert (found.verdict, found.use) == (DO_NOT, "uniform")
    assert "the prefix does nothing measurable here" in found.headline
    measures.empty = measures.full
    assert "does nothing measurable" in audit(measures, None).headline


def test_prefix_that_raises_the_loss_is_said(log_of):
    effects = layered_effects(0)
    known = dict.fromkeys(IMPORTANCES, effects)
    found = audit(simulate([-0.3 * layer for layer in effects], known), log_of(effects))
    assert found.verdict == DO_NOT
    assert "the prefix raises the loss" in found.headline


def test_gates_that_have_not_moved_are_followed_with_care_at_most(log_of):
    effects = layered_effects(0)
    found = audit(simulate(effects), log_of(effects, grown=False))
    assert (found.verdict, levels(found)["trained"]) == (CARE, "weak")


def test_few_examples_few_orders_and_few_steps_are_not_enough(log_of, tmp_path, record_run):
    effects = layered_effects(0)
    few = audit(simulate(effects, num_examples=20), log_of(effects))
    assert (few.verdict, levels(few)["enough examples"]) == (DO_NOT, "bad")
    assert "not enough evidence" in few.headline
    one_order = audit(simulate(effects, random_orders=1), log_of(effects))
    assert (one_order.verdict, levels(one_order)["better than random"]) == (CARE, "weak")
    short = record_run(tmp_path / "a", steps=3, lengths=(8,) * 6)
    few_steps = audit(simulate(effects), Run(short).gates)
    assert levels(few_steps)["stable"] == "weak"
    assert levels(audit(simulate(effects), None))["stable"] == "weak"
    assert audit(simulate(effects), None).verdict == CARE


def test_wide_intervals_are_not_enough(log_of):
    effects = [layer * 0.2 for layer in layered_effects(0)]
    found = audit(simulate(effects, num_examples=40, noise=3.0), log_of(effects))
    assert found.verdict == DO_NOT


def test_equal_gates_give_no_order():
    effects = layered_effects(0)
    found = audit(simulate(effects, {"gate": [np.ones(8)] * 6}), None)
    assert found.verdict == DO_NOT
    assert "they give no order" in found.headline


def test_order_that_changes_late_is_not_followed(tmp_path):
    effects = layered_effects(0)
    writer = GateLogWriter(tmp_path, [8] * 6)
    for step in range(1, 41):
        weights = np.array(effects if step > 30 else effects[::-1])
        writer.append(step, weights, np.zeros((6, 8)), np.ones(6))
    writer.close()
    found = audit(simulate(effects), GateLog(tmp_path))
    assert (found.verdict, levels(found)["stable"]) == (DO_NOT, "bad")


def test_other_seeds_with_another_order_ask_for_care(log_of):
    effects = layered_effects(0)
    same, other = np.array(effects), np.array(effects[::-1])
    agreed = audit(simulate(effects), log_of(effects), [same, same])
    assert (agreed.verdict, agreed.numbers["seeds"]["runs"]) == (FOLLOW, 3)
    found = audit(simulate(effects), log_of(effects), [other])
    assert (found.verdict, levels(found)["same over seeds"]) == (CARE, "weak")


@pytest.mark.parametrize("lengths", [(8,), (1,), (4, 0, 4), (0, 6, 0, 1), (1, 1), (0, 0)])
def test_any_shape_is_audited(log_of, lengths):
    random = np.random.default_rng(0)
    effects = [random.gamma(1, 0.1, length) for length in lengths]
    if any(lengths):
        measures = simulate(effects, tokens=True, num_examples=40)
    else:
        point = Point(metric=None, losses=[1.0] * 40)
        measures = Measures(
            prefix_lengths=[0, 0], example_ids=["a"] * 40, full=point, empty=point, layers=[None, None], curves=[]
        )
    found = audit(measures, log_of(effects) if any(lengths) else None)
    json.dumps(found.numbers, allow_nan=False)
    assert found.verdict in (FOLLOW, CARE, DO_NOT)
    assert found.reasons


def test_missing_losses_and_huge_numbers_of_a_diverged_run_are_survived():
    effects = layered_effects(0)
    measures = simulate(effects, num_examples=40, tokens=True)
    measures.importance["gate"][0][0] = float("nan")
    measures.importance["norm"][0][0] = float("inf")
    measures.layers[1].losses[:] = [None] * 40
    measures.curves[0].points[2].losses[:] = [1e308] * 40
    measures.curves[1].points[2].metric = None
    found = audit(measures, None)
    json.dumps(found.numbers, allow_nan=False)
    assert found.verdict == DO_NOT
    for point in [measures.full, measures.empty]:
        point.losses[:] = [None] * 40
    assert "not enough evidence" in audit(measures, None).headline


def test_measures_without_any_curve_or_importance_are_audited():
    measures = simulate(layered_effects(0)).model_copy(update={"curves": [], "importance": {}})
    assert audit(measures, None).verdict == DO_NOT
    measures = simulate(layered_effects(0)).model_copy(update={"curves": [], "layers": [None] * 6})
    found = audit(measures, None)
    assert (found.verdict, found.headline) == (
        DO_NOT,
        "Do not follow the gates: not enough evidence for them. Use uniform lengths.",
    )


def test_all_thresholds_are_stated_in_numbers_and_docs():
    found = audit(simulate(layered_effects(0)), None)
    assert found.numbers["thresholds"] == {name: value for name, (value, _) in THRESHOLDS.items()}
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    for name, (value, _) in THRESHOLDS.items():
        assert f"| `{name}` | {value:.4g} |" in text


@pytest.fixture
def measured(tmp_path, record_run):
    """A run on disk whose gates rise with the layer, as its simulated effects do."""

    def make(name: str = "a", **fields) -> Run:
        folder = record_run(tmp_path / "runs" / name, lengths=(16,) * 6, **fields)
        effects = np.arange(1.0, 7)[:, None] + np.random.default_rng(0).uniform(0, 0.5, (6, 16))
        measures = simulate(list(effects / effects.sum()))
        (folder / ADAPTER_FOLDER).mkdir()
        (folder / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"adapter")
        measures.adapter_sha256 = hashlib.sha256(b"adapter").hexdigest()
        write_measures(folder, measures)
        return Run(folder)

    return make


def test_run_on_disk_is_audited_and_one_without_measures_is_not(measured, record_run, tmp_path):
    assert audit_run(measured()).verdict == FOLLOW
    assert audit_run(Run(record_run(tmp_path / "runs" / "b"))) is None


def test_changed_adapter_or_data_is_said(measured):
    run = measured()
    (run.folder / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"trained further")
    found = audit_run(run)
    assert (found.verdict, found.outdated) == (DO_NOT, True)
    assert "has changed since it was measured" in found.headline
    assert f"python -m apt_core measure {run.folder}" in found.reasons[0]
    (run.folder / ADAPTER_FOLDER / ADAPTER_FILE).unlink()
    assert "that was measured is not in the run" in audit_run(run).reasons[0]
    other = audit_run(measured("b", data_hash="other"))
    assert (other.verdict, levels(other)["data"]) == (CARE, "weak")


def test_seeds_beside_the_run_are_found_and_damaged_ones_passed_over(measured, record_run):
    run = measured()
    for seed in (2, 3):
        update_finished_run(record_run(run.folder.parent / f"s{seed}", seed=seed), seed=seed)
    record_run(run.folder.parent / "other", lengths=(8,) * 6)
    assert sorted(other.name for other in siblings_of(run)) == ["s2", "s3"]
    found = audit_run(run)
    assert (found.numbers["seeds"]["runs"], found.numbers["seeds"]["without"]) == (3, 0)
    next((run.folder.parent / "s2" / GATES_FOLDER).iterdir()).write_bytes(b"damaged")
    assert audit_run(Run(run.folder)).numbers["seeds"]["runs"] == 2


def test_damaged_measures_are_an_error_that_names_the_file(measured):
    run = measured()
    (run.folder / MEASURES_FILE).write_text("[1")
    with pytest.raises(AptValueError, match="damaged"):
        audit_run(run)


def test_command_for_more_quotes_the_folder_and_asks_for_more_than_was_done():
    measures = simulate(layered_effects(0))
    assert (
        command_for_more(Path("runs/a b"), audit(measures, None)) == "python -m apt_core measure 'runs/a b' --cost 10"
    )
    measures.cost = 9.8
    assert command_for_more(Path("a"), audit(measures, None)) == "python -m apt_core measure a --cost 0"


def test_verdict_is_the_same_twice(log_of):
    effects = layered_effects(0)
    log = log_of(effects)
    assert audit(simulate(effects), log) == audit(simulate(effects), log)


def test_lengths_that_differ_make_no_agreement_of_meaningless_gates(log_of):
    """Layers with more tokens have more gate mass and more effect; by sums, every fourth such run was followed."""
    verdicts = []
    for seed in range(25):
        draw, lengths = np.random.default_rng(seed), (2, 4, 8, 16, 24, 42)
        effects = [0.02 * draw.uniform(0.5, 1.5) * draw.uniform(0.5, 1.5, length) for length in lengths]
        gates = [np.clip(draw.uniform(0.3, 0.7) + draw.normal(0, 0.05, length), 0.01, 0.99) for length in lengths]
        found = audit(simulate(effects, {"gate": gates}, num_examples=60, seed=seed), log_of(gates))
        verdicts.append(found.verdict)
    assert verdicts.count(FOLLOW) <= 3
    assert verdicts.count(DO_NOT) > len(verdicts) / 2


def test_measures_of_another_split_are_said_to_confirm_nothing(tmp_path, record_run, log_of):
    effects = layered_effects(0)
    found = audit(simulate(effects), log_of(effects), other_data="of the test split")
    assert levels(found)["data"] == "weak"
    assert found.verdict == CARE
