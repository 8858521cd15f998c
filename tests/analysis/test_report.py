"""The report: it parses, asks nobody for anything, tells no folder of this machine, and holds what was decided."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.html import figure_html, plotly_script
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.pilot import Pilot
from analysis.pilot_files import create_pilot
from analysis.report import gather, report_html
from apt_core.errors import AptValueError
from apt_core.measure_format import write_measures
from apt_core.run_format import RUN_FILE
from tests.analysis.pilot_world import ACCURACY, PILOT, ListedJobs, record_trainings
from tests.analysis.simulated_measures import simulate

PROJECT = Path(__file__).parents[2]
VOID = {"meta", "br", "img", "link", "input", "hr"}
LOADING = ("src", "href", "data", "action", "srcset", "poster", "background", "formaction", "xlink:href")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Texts, tags and attributes of a page; every element must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if self._open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def root(tmp_path, record_run) -> Path:
    """Nine finished trainings of the pilot ``demo``."""
    folder = tmp_path / "private" / "runs"
    record_trainings(record_run, folder)
    return folder


def reported(root: Path, pilot: Pilot = PILOT) -> tuple[str, Page]:
    text = report_html(gather("demo", pilot, root, ListedJobs()))
    return text, Page(text)


def edit(folder: Path, **fields) -> None:
    path = folder / RUN_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_report_holds_question_verdict_numbers_caveats_and_commands(root):
    _, page = reported(root)
    for words in (
        "Will half do?",
        "Prune: 48 instead of 96 virtual tokens cost at most 1.4 points of accuracy",
        "0.617 ± 0.038",
        "-0.3 (-1.4 to +0.8)",
        "demo-uniform-s3",
        "not audited",
        "which also chose each run's checkpoint",
        "144 train, 360 validation, 540 test",
        "0123abcd",
        "torch 2.13.0",
        "python -m apt_core retrain runs/demo-full-s1 --prefix-lengths 2,4,6,10,12,14 --seed 3 "
        "--out runs/demo-pruned-s3 --no-measure",
        "2026-03-02",
    ):
        assert words in page.text
    assert page.text.count("python -m apt_core train ") == 3
    assert page.text.count("python -m apt_core retrain ") == 6


def test_report_loads_nothing_and_may_load_nothing(root):
    text, page = reported(root)
    assert [each for each in page.attributes if each[1] in LOADING] == []
    assert not {"link", "iframe", "object", "embed", "base", "form", "a", "img"} & set(page.tags)
    assert "@import" not in text.replace(plotly_script(), "")
    assert "url(" not in text.replace(plotly_script(), "")
    (policy,) = [value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert text.count(plotly_script()) == 1


def test_report_names_no_folder_of_this_machine(root):
    text, page = reported(root)
    mine = text.replace(plotly_script(), "")
    for private in (str(root), str(root.parent), "/home", sys.prefix, str(PROJECT)):
        assert private not in mine
    assert str(root) in json.loads((root / "demo-full-s1" / RUN_FILE).read_text())["command"]
    assert "runs/demo-full-s1" in page.text


def test_environment_is_not_told(root, monkeypatch):
    monkeypatch.setenv("APT_TEST_SECRET", "f3a9c1-not-to-be-told")
    text, _ = reported(root)
    assert "f3a9c1" not in text


def test_hostile_texts_are_shown_as_text(root):
    for folder in root.iterdir():
        edit(folder, labels=[HOSTILE], data_hash=HOSTILE, device=HOSTILE, command=f"python {HOSTILE}")
        edit(folder, versions={HOSTILE: HOSTILE})
    safe = reported(root)[1]
    _, page = reported(root, PILOT.model_copy(update={"question": HOSTILE}))
    assert page.tags == safe.tags
    assert HOSTILE in page.text
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []


def test_figures_are_in_the_page_with_their_data(root):
    text, page = reported(root)
    names = [value for tag, name, value in page.attributes if tag == "div" and name == "id"]
    assert names == ["metric-by-arm", "prefix-lengths", "gate-profile"]
    assert page.tags.count("figure") == page.tags.count("figcaption") == 3
    assert all(f'Plotly.newPlot(                        "{name}"' in text for name in names)


def test_measured_run_adds_its_curve_and_its_audit(root):
    effects = np.arange(1.0, 7)[:, None] + np.zeros((6, 16))
    write_measures(root / "demo-full-s1", simulate(list(effects / effects.sum())))
    text, page = reported(root)
    assert '"deletion-curve"' in text
    assert "The adapter that was measured is not in the run" in page.text  # recorded runs have none
    assert "The audit of the first run says: do not follow" in page.text


def test_damaged_measures_and_gates_leave_the_rest_standing(root):
    (root / "demo-full-s1" / "measures.json").write_text("{")
    next((root / "demo-full-s1" / "gates").iterdir()).write_bytes(b"damaged")
    text, page = reported(root)
    assert "What was measured of the first run cannot be read:" in page.text
    assert "nobody has checked" not in page.text
    assert str(root) not in page.text
    assert '"gate-profile"' not in text
    assert "Prune:" in page.text


def test_missing_training_makes_the_answer_provisional(root):
    (root / "demo-uniform-s3").rename(root / "aside")
    _, page = reported(root)
    assert "1 of 9 trainings are not finished; the answer is provisional." in page.text
    assert "to start" in page.text


def test_report_before_anything_can_be_compared_says_so(tmp_path, record_run):
    record_trainings(record_run, tmp_path, only=1)
    with pytest.raises(AptValueError, match="finish it on the Pilot page"):
        gather("demo", PILOT, tmp_path, ListedJobs())


def test_undecided_and_keep_have_a_mark_of_their_own(tmp_path, record_run):
    pruned = {**ACCURACY, "pruned": (0.40, 0.39, 0.43)}
    record_trainings(record_run, tmp_path, accuracy=pruned)
    text, page = reported(tmp_path)
    assert "Keep the full length" in page.text
    assert '<div class="answer keep">' in text


def test_figure_texts_cannot_end_the_script():
    drawn = figure_html(prefix_lengths_figure(PrefixLengths([HOSTILE], [[1, 2]])), "f")
    assert Page(drawn).tags.count("script") == 1
    assert re.search(r"<img|onerror=alert\(2\)>", drawn) is None


def test_command_writes_the_file_and_says_the_outcome(root, tmp_path):
    create_pilot(root, "demo", PILOT)
    out = tmp_path / "report.html"
    command = [sys.executable, "-m", "analysis", "report", str(root / ".pilots" / "demo.json"), "--out", str(out)]
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=PROJECT, check=True)
    said = json.loads(result.stdout)
    assert (said["pilot"], said["outcome"]) == ("demo", "prune")
    assert "Will half do?" in Page(out.read_text()).text
    wrong = subprocess.run([*command[:4], str(tmp_path / "none.json")], capture_output=True, text=True, cwd=PROJECT)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no such file" in wrong.stderr
