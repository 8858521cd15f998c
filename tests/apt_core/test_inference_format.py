"""inference.json: written, read back, and refused where it is damaged or does not fit the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.inference_format import INFERENCE_FILE, read_inference, write_inference
from tests.inferences import make_inference


@pytest.fixture
def written(tmp_path) -> Path:
    write_inference(tmp_path, make_inference((3, 0, 2)))
    return tmp_path


def test_what_was_written_is_read_back(written):
    assert read_inference(written, [3, 0, 2]) == make_inference((3, 0, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema_version: got 99"),
        ({"prefix_lengths": [1, 2, 3]}, "prefix_lengths: got"),
        ({"variants": []}, "exactly one of kind 'full'"),
        ({"variants": [{}]}, "variants.0"),
        ({"token_milliseconds": [1.0]}, "token_milliseconds"),
        ({"token_milliseconds": [float("nan")] * 3}, "token_milliseconds"),
        ({"batch_shape": [1] * 9}, "batch_shape"),
        ({"notes": ["x"] * 1000}, "notes"),
    ],
)
def test_damaged_file_is_refused_with_the_reason(written, change, message):
    path = written / INFERENCE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AptError, match=message):
        read_inference(written, [3, 0, 2])


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '"a"', "[" * 100_000])
def test_file_that_is_no_object_is_refused(written, content):
    (written / INFERENCE_FILE).write_text(content)
    with pytest.raises(AptError, match=INFERENCE_FILE):
        read_inference(written, [3, 0, 2])


def test_variant_with_an_impossible_time_is_refused(written):
    path = written / INFERENCE_FILE
    content = json.loads(path.read_text())
    content["variants"][0]["against_full"] = [1.0, 2.0, 0.5]
    path.write_text(json.dumps(content))
    with pytest.raises(AptError, match="median within its interval"):
        read_inference(written, [3, 0, 2])


def test_missing_or_linked_file_is_refused(written, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(AptError, match=f"bench-inference {other}' does it"):
        read_inference(other, [3, 0, 2])
    (other / INFERENCE_FILE).symlink_to(written / INFERENCE_FILE)
    with pytest.raises(AptError, match="is a link"):
        read_inference(other, [3, 0, 2])
