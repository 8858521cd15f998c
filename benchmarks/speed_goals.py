"""What was aimed at in speed and memory, and what the results say about it."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.contenders import BACKBONE, HIDDEN, PRUNED, full_name
from benchmarks.speed_cells import CELLS

HIDDEN_STEP, RECORDED_STEP, GIVES_BACK, HELP_SECONDS = 1.05, 1.01, 0.70, 0.7
QUARTER = next(name for name, divisor in PRUNED.items() if divisor == 4)


class Goal(NamedTuple):
    """One line of the table."""

    name: str
    reached: str
    held: bool | None
    """None: the intervals of what was measured contain both"""


def goals(speed: dict[str, Any], measured: dict[str, Any]) -> list[Goal]:
    """Those that the results can say something about.

    Args:
        speed: ``speed.json``.
        measured: its cells with times.
    """
    found = [_hidden(measured), _against_peft(measured), _gives_back(measured)]
    beside = {"recording": _recording, "copies of the cache": _copies, "start-up": _help}
    found += [judge(speed[name]) for name, judge in beside.items() if name in speed]
    return [goal for goal in found if goal is not None]


def _hidden(measured: dict[str, Any]) -> Goal | None:
    ratios = {
        key: entry["timing"]["contenders"][HIDDEN]["ratio"]
        for key, entry in measured.items()
        if CELLS[key].mode.startswith("training")
        and CELLS[key].num_virtual_tokens == 20
        and HIDDEN in entry["timing"]["contenders"]
    }
    if not ratios:
        return None
    return Goal(
        f"training step, hidden gates, l = 20: at most {HIDDEN_STEP} x the frozen backbone",
        _most(ratios),
        _all_at_most(HIDDEN_STEP, ratios),
    )


def _against_peft(measured: dict[str, Any]) -> Goal | None:
    ratios = {key: entry["timing"]["contenders"][full_name(CELLS[key])]["to_peft"] for key, entry in measured.items()}
    if not ratios:
        return None
    slower = sum(ratio["low"] > 1 for ratio in ratios.values())
    faster = sum(ratio["high"] <= 1 for ratio in ratios.values())
    return Goal(
        "default gates not slower than PEFT's prefix tuning, which has none, in any cell",
        f"of {len(ratios)} cells faster in {faster}, slower in {slower}, the others undecided; {_most(ratios)}",
        _all_at_most(1, ratios),
    )


def _gives_back(measured: dict[str, Any]) -> Goal | None:
    quarters = {key: entry["timing"]["contenders"][QUARTER] for key, entry in measured.items()}
    told = {key: each for key, each in quarters.items() if each["gives_back"] is not None}
    if not told:
        return None
    worst = min(told, key=lambda key: told[key]["gives_back"])
    less = {key: {"low": -each["over_goal_ms"]["high"], "high": -each["over_goal_ms"]["low"]}
            for key, each in told.items()}  # fmt: skip
    return Goal(
        f"pruning to 25 % gives back at least {GIVES_BACK:.0%} of the prefix's own cost, where that can be told",
        f"told in {len(told)} of {len(quarters)} cells; at least {told[worst]['gives_back']:.0%} ({worst})",
        _all_at_most(0, less),
    )


def _most(ratios: dict[str, dict[str, float]]) -> str:
    worst = max(ratios, key=lambda key: ratios[key]["median"])
    ratio = ratios[worst]
    return f"at most {ratio['median']:.3f} x ({ratio['low']:.3f} to {ratio['high']:.3f}; {worst})"


def _all_at_most(goal: float, ratios: dict[str, dict[str, float]]) -> bool | None:
    if any(ratio["low"] > goal for ratio in ratios.values()):
        return False
    return True if all(ratio["high"] <= goal for ratio in ratios.values()) else None


def _recording(found: dict[str, Any]) -> Goal:
    ratio = found["ratio_from_record"]
    return Goal("recording: a step takes at most 1 % longer", f"{ratio - 1:.2%}", ratio <= RECORDED_STEP)


def _copies(found: dict[str, Any]) -> Goal:
    tensors = found["tensors"]
    more = max(tensors[name][kind] - tensors[BACKBONE][kind] for name in tensors for kind in tensors[BACKBONE])
    return Goal("a decoding step copies no key/value cache", f"{more} tensors more than the backbone", more <= 0)


def _help(found: dict[str, Any]) -> Goal:
    each = found["commands"]["python -m apt_core --help"]
    median = each["wall_s"]["median"]
    return Goal(
        f"--help in under {HELP_SECONDS} s, without torch",
        f"{median:.2f} s, torch {'' if each['torch'] else 'not '}loaded",
        median < HELP_SECONDS and not each["torch"],
    )
