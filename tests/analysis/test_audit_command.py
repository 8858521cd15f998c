"""``python -m analysis audit``: its words, its JSON and its errors."""

from __future__ import annotations

import hashlib
import json

import pytest
from typer.testing import CliRunner

from analysis.__main__ import app
from apt_core.command_line import run_typer
from apt_core.measure_format import write_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER
from tests.analysis.simulated_measures import layered_effects, simulate


@pytest.fixture
def run(tmp_path, record_run):
    folder = record_run(tmp_path / "my run", lengths=(8,) * 6)
    measures = simulate(sorted(layered_effects(0), key=sum))
    (folder / ADAPTER_FOLDER).mkdir()
    (folder / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"adapter")
    measures.adapter_sha256 = hashlib.sha256(b"adapter").hexdigest()
    write_measures(folder, measures)
    return folder


def test_audit_prints_verdict_checks_thresholds_and_what_gives_more(run):
    printed = CliRunner().invoke(app, ["audit", str(run)], catch_exceptions=False).output
    assert printed.startswith(("Follow", "Do not follow"))
    for words in ("good  the prefix matters", "first-order effect", "MIN_EXAMPLES 30", "Other seeds were not trained"):
        assert words in printed
    assert f"measure '{run}' --cost 10" in printed


def test_audit_as_json_has_every_number(run):
    printed = CliRunner().invoke(app, ["audit", str(run), "--json"], catch_exceptions=False).output
    found = json.loads(printed)
    assert found["run"] == str(run)
    assert {"verdict", "use", "headline", "reasons", "checks", "numbers", "not_measured", "outdated"} <= set(found)
    assert found["checks"][0]["name"] == "the prefix matters"
    assert found["numbers"]["orders"]["gate"]["over_random"]["value"] > 0


def test_audit_of_an_unmeasured_run_or_no_run_is_bad_input(tmp_path, record_run, monkeypatch, capsys):
    record_run(tmp_path / "a", steps=2)
    for folder, words in ((tmp_path / "a", "not measured yet"), (tmp_path, "not a run folder")):
        monkeypatch.setattr("sys.argv", ["analysis", "audit", str(folder)])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        assert ending.value.code == 2
        assert words in capsys.readouterr().err


def test_nothing_left_to_measure_and_runs_of_the_python_api_are_said_instead_of_a_command(tmp_path, record_run):
    record_run(tmp_path / "a", lengths=(8,) * 6)
    write_measures(tmp_path / "a", simulate(layered_effects(0), tokens=True))
    printed = CliRunner().invoke(app, ["audit", str(tmp_path / "a")], catch_exceptions=False).output
    assert "Everything was measured on all 100 examples: more evidence needs more examples." in printed
    partly = simulate(layered_effects(0), tokens=True)
    partly.examples_available = 500
    write_measures(tmp_path / "a", partly)
    printed = CliRunner().invoke(app, ["audit", str(tmp_path / "a")], catch_exceptions=False).output
    assert f"measure {tmp_path / 'a'} --cost 10" in printed
    record_run(tmp_path / "own", lengths=(8,) * 6, task="", training={})
    write_measures(tmp_path / "own", partly)
    printed = CliRunner().invoke(app, ["audit", str(tmp_path / "own")], catch_exceptions=False).output
    assert printed.endswith("made through the Python API: measure it there, with apt_core.measure.measure.\n")
