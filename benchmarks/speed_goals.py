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
    held: bool


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
        key: entry["timing"]["contenders"][HIDDEN]["ratio"]["median"]
        for key, entry in measured.items()
        if CELLS[key].mode.startswith("training")
        and CELLS[key].num_virtual_tokens == 20
        and HIDDEN in entry["timing"]["contenders"]
    }
    if not ratios:
        return None
    worst = max(ratios, key=ratios.get)
    return Goal(
        f"training step, hidden gates, l = 20: at most {HIDDEN_STEP} x the frozen backbone",
        f"at most {ratios[worst]:.3f} ({worst})",
        ratios[worst] <= HIDDEN_STEP,
    )


def _against_peft(measured: dict[str, Any]) -> Goal | None:
    ratios = {
        key: entry["timing"]["contenders"][full_name(CELLS[key])]["to_peft"]["median"]
        for key, entry in measured.items()
    }
    if not ratios:
        return None
    worst, slower = max(ratios, key=ratios.get), sum(ratio > 1 for ratio in ratios.values())
    return Goal(
        "default gates not slower than PEFT's prefix tuning, which has none, in any cell",
        f"slower in {slower} of {len(ratios)}, at most {ratios[worst]:.3f} x ({worst})",
        not slower,
    )


def _gives_back(measured: dict[str, Any]) -> Goal | None:
    parts = {
        key: entry["timing"]["contenders"][QUARTER]["gives_back"]
        for key, entry in measured.items()
        if entry["timing"]["contenders"][QUARTER]["gives_back"] is not None
    }
    if not parts:
        return None
    worst = min(parts, key=parts.get)
    enough = sum(part >= GIVES_BACK for part in parts.values())
    return Goal(
        f"pruning to 25 % gives back at least {GIVES_BACK:.0%} of the prefix's own cost, where that can be told",
        f"in {enough} of {len(parts)} cells, at least {parts[worst]:.0%} ({worst})",
        enough == len(parts),
    )


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
