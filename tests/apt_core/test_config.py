"""Validation and round trip of the settings."""

from __future__ import annotations

import pytest

from apt_core.config import AptConfig, TrainSettings, parse_prefix_lengths
from apt_core.errors import AptError, AptValueError


def test_apt_config_round_trips_through_json():
    config = AptConfig(prefix_lengths=(3, 0, 5), token_gate="static", layer_scale=False, init_std=0.5)
    assert AptConfig.model_validate_json(config.model_dump_json()) == config


def test_apt_config_with_several_problems_names_each_field():
    with pytest.raises(AptValueError, match=r"num_virtual_tokens: got -1.*token_gate: got 'soft'.*no_such"):
        AptConfig(num_virtual_tokens=-1, token_gate="soft", no_such=3)


@pytest.mark.parametrize("lengths", [(-1, 2), (1.5, 2), ("2", 3), (True, 2), (2000,), ()])
def test_apt_config_with_unusable_prefix_lengths_raises(lengths):
    with pytest.raises(AptError, match="prefix_lengths"):
        AptConfig(prefix_lengths=lengths)


def test_lengths_without_prefix_lengths_is_uniform():
    assert AptConfig(num_virtual_tokens=7).lengths(3) == (7, 7, 7)


def test_lengths_for_another_number_of_layers_raises():
    with pytest.raises(AptValueError, match=r"accepted: 4 integers, one per layer of the backbone \(got 2\)"):
        AptConfig(prefix_lengths=(1, 2)).lengths(4)


def test_train_settings_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().epochs = 3


@pytest.mark.parametrize(("text", "lengths"), [("4,0,8", (4, 0, 8)), (" 4 , 0,8 ", (4, 0, 8)), ("16", (16,))])
def test_parse_prefix_lengths_reads_integers(text, lengths):
    assert parse_prefix_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "4,,8", "4,-1", "4,1.5", "4;8", "a,b", "4,9999"])
def test_parse_prefix_lengths_with_unusable_text_says_what_is_accepted(text):
    with pytest.raises(AptValueError, match=r"prefix_lengths: got .*; accepted: integers from 0 to 1024"):
        parse_prefix_lengths(text)
