"""What is typed into pages: nothing leaves the folders that are allowed, and every refusal says what is wrong."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.inputs import data_folder, data_place, inside, model_name
from apt_core.errors import AptError

HOSTILE_PARTS = ["..", ".", "", "-rf", "/", "//", "~", "~root", "\\", "C:", "\0", "\n", "a", "b", " ", "link", "data"]
HOSTILE = st.lists(st.sampled_from(HOSTILE_PARTS) | st.text(max_size=4), max_size=6).map("/".join) | st.text(
    max_size=40
)
MANY = settings(max_examples=100)
"""also on a busy machine"""


@pytest.fixture(scope="module")
def world() -> Path:
    """``allowed`` with data and a link to ``elsewhere``, which is beside it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "allowed" / "data").mkdir(parents=True)
        (root / "allowed" / "train.csv").write_text("text,label\n")
        (root / "elsewhere" / "secret").mkdir(parents=True)
        (root / "allowed" / "link").symlink_to(root / "elsewhere")
        (root / "allowed" / "turn").symlink_to(root / "allowed" / "turn")
        (root / "shortcut").symlink_to(root / "allowed")
        yield root


@pytest.mark.parametrize("name", ["run", "sweep/run", "Läufe 3", "a.b", " run "])
def test_names_below_the_folder_are_taken_as_they_are(world, name):
    assert inside(world / "allowed", name) == world / "allowed" / name.strip()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("..", "dot"),
        ("../elsewhere", "dot"),
        ("data/../../elsewhere", "dot"),
        (".jobs/0001-a", "dot"),
        ("/etc", "absolute"),
        ("C:/runs", ":"),
        ("a\\..\\b", "\\"),
        ("-rf", "dash"),
        ("data/--out", "dash"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("a\x1b[2J", "control"),
        ("a\u202eb", "control"),
        ("", "empty"),
        ("  ", "empty"),
        ("a//b", "1 to 120"),
        ("a/", "1 to 120"),
        ("x" * 121, "1 to 120"),
        ("link", "link leads out"),
        ("link/secret", "link leads out"),
        ("turn", "links turn"),
    ],
)
def test_names_that_lead_elsewhere_are_refused_with_the_reason(world, name, said):
    with pytest.raises(AptError, match=re.escape(said)) as caught:
        inside(world / "allowed", name, "out")
    assert str(caught.value).startswith("out: got ")
    assert "\n" not in str(caught.value)


@MANY
@given(name=HOSTILE)
@example("a/b")
def test_no_name_leads_out_of_the_folder(world, name):
    root = world / "allowed"
    try:
        place = inside(root, name)
    except AptError:
        return
    assert place.resolve().is_relative_to(root)
    assert place.resolve() != root
    assert not any(part.startswith((".", "-")) for part in place.relative_to(root).parts)


@MANY
@given(text=HOSTILE)
@example("data")
@example("link/secret")
def test_no_text_names_data_outside_of_what_is_allowed(world, text):
    for typed in (text, f"{world}/allowed/{text}", f"{world}/elsewhere/{text}", f"{world}/shortcut/{text}"):
        try:
            place = data_place(typed, [world / "shortcut", world / "nowhere"])
        except AptError:
            continue
        assert place.is_relative_to(world / "allowed")
        assert place.resolve() == place


def test_allowed_data_is_named_by_its_full_path_or_below_an_allowed_folder(world):
    allowed = [world / "allowed"]
    for typed in ("data", " data ", f"{world}/allowed/data", f"{world}/shortcut/data"):
        assert data_folder(typed, allowed) == world / "allowed" / "data"
    assert data_place("train.csv", allowed) == world / "allowed" / "train.csv"
    assert data_place(str(world / "allowed"), allowed) == world / "allowed"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("../elsewhere", "'..'"),
        ("{world}/allowed/../elsewhere", "'..'"),
        ("{world}/elsewhere", "elsewhere"),
        ("{world}/elsewhere/none", "elsewhere"),
        ("link", "elsewhere"),
        ("link/secret", "elsewhere"),
        ("/etc/passwd", "elsewhere"),
        ("~", "elsewhere"),
        ("~nobody-of-that-name", "no such home"),
        ("none", "does not exist"),
        ("x" * 5000, "x{120}', which does not exist"),
        ("-data", "dash"),
        ("da\0ta", "control"),
        ("", "empty"),
    ],
)
def test_data_elsewhere_is_refused_while_others_may_name_it(world, typed, said):
    with pytest.raises(AptError, match=said):
        data_place(typed.replace("{world}", str(world)), [world / "allowed"], "data")


def test_whether_a_path_elsewhere_exists_is_not_told(world):
    told = []
    for name in ("elsewhere", "nonesuch0"):
        with pytest.raises(AptError) as caught:
            data_place(str(world / name), [world / "allowed"])
        told.append(str(caught.value).replace(f"{world}/{name}", "x"))
    assert told[0] == told[1]


def test_without_folders_that_are_allowed_the_flag_is_named(world):
    with pytest.raises(AptError, match=r"without -- --data DIR"):
        data_place(str(world / "allowed"), [])


def test_on_ones_own_machine_any_place_that_exists_may_be_named(world, monkeypatch):
    monkeypatch.chdir(world / "allowed")
    monkeypatch.setenv("HOME", str(world / "elsewhere"))
    assert data_folder("data", None) == Path("data")
    assert data_folder("link/secret", None) == Path("link/secret")
    assert data_folder(str(world / "elsewhere"), None) == world / "elsewhere"
    assert data_folder("~/secret", None) == world / "elsewhere" / "secret"
    for typed, said in (("../elsewhere", "full path"), ("none", "does not exist"), ("a\tb", "control"), ("-x", "dash")):
        with pytest.raises(AptError, match=said):
            data_folder(typed, None)
    with pytest.raises(AptError, match="a folder, not a file"):
        data_folder("train.csv", None)


def test_folder_that_may_not_be_looked_into_is_one_that_is_not_there(world, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", os.fspath(self))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(AptError, match="does not exist here"):
        data_place(str(world / "allowed"), None)


@pytest.mark.parametrize("name", ["minilm", "gpt2", "google-bert/bert-base-uncased", " FacebookAI/roberta-base "])
def test_names_on_the_hub_are_taken(name):
    assert model_name(name, []) == model_name(name, None) == name.strip()


@pytest.mark.parametrize(
    "name",
    [
        "bert; rm -rf ~",
        "$(touch x)",
        "`touch x`",
        "a|b",
        "a&b",
        "a>b",
        "me/model\nx",
        "me/model\0",
        "--help",
        "me/../you",
        "../model",
        "a/b/c",
        "https://example.com/model",
        "",
    ],
)
@pytest.mark.parametrize("allowed", [None, []])
def test_what_can_be_no_model_is_refused_with_the_reason(name, allowed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AptError, match=r"^model: got .*accepted: ") as caught:
        model_name(name, allowed)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_model_must_be_allowed_while_others_may_name_it(world, monkeypatch):
    monkeypatch.chdir(world)
    folder = world / "elsewhere" / "secret"
    assert model_name(str(folder), None) == str(folder)
    assert model_name("elsewhere/secret", None) == "elsewhere/secret"
    assert model_name("allowed/data", [world]) == str(world / "allowed" / "data")
    for typed in (str(folder), "elsewhere/secret", f"{world}/allowed/link/secret"):
        with pytest.raises(AptError, match="model: got"):
            model_name(typed, [world / "allowed"])
