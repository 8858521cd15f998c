"""Texts that leave this machine: no folder of it is in them, and what a person typed stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.shareable import public_command, public_place, without_places

ROOT = Path("/home/somebody/secret project/runs")


@pytest.mark.parametrize(
    ("command", "shared"),
    [
        (
            f"python -m apt_core train --task copa --out '{ROOT}/p-full-s1'",
            "... train --task copa --out runs/p-full-s1",
        ),
        (f"python -m apt_core train '--out={ROOT}/p-full-s1'", "... train --out=runs/p-full-s1"),
        ("python -m apt_core train --data-dir /home/somebody/data", "... train --data-dir /path/to/data"),
        ("python -m apt_core train --data-dir 'C:\\Users\\me\\data'", "... train --data-dir /path/to/data"),
        ("python -m apt_core train --data-dir data/copa --out runs/a", "... train --data-dir data/copa --out runs/a"),
        ("python -m apt_core train --model sentence-transformers/x", "... train --model sentence-transformers/x"),
        ("python 'unfinished /home/somebody/data", "python 'unfinished /path/to/data"),
    ],
)
def test_commands_name_no_folder_of_this_machine(command, shared):
    assert public_command(command, ROOT) == shared.replace("...", "python -m apt_core")


def test_prose_names_no_folder_of_this_machine():
    text = (
        f"Measure again: python -m apt_core measure {ROOT}/a. See https://example.org/a/b and/or /etc/some/file, too."
    )
    assert without_places(text, ROOT) == (
        "Measure again: python -m apt_core measure runs/a. See https://example.org/a/b and/or /path/to/file, too."
    )


def test_places_keep_their_last_part_and_relative_ones_stay():
    assert public_place("/home/somebody/models/tiny", ROOT) == "/path/to/tiny"
    assert public_place(f"{ROOT}/a", ROOT) == "runs/a"
    assert public_place("minilm", ROOT) == "minilm"
    assert public_place("/", ROOT) == "/path/to/data"
