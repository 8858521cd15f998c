"""``docs/benchmarks.md``, written from the JSON files in ``benchmarks/results``: speed, run log, pages, sweeps."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.contenders import ADAPTERS, BACKBONE, PER_POSITION, STATIC, full_name, names
from benchmarks.speed_cells import CELLS
from benchmarks.speed_goals import goals

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "results"
RESULTS = FOLDER / "speed.json"
PAGE = ROOT / "docs" / "benchmarks.md"
OTHERS = ("run_log", "dashboard", "live", "sweep")
HEAD = """# Benchmarks

Written by `python -m benchmarks.speed` from `benchmarks/results/*.json`.
"""
HOW = """Contenders are timed in turn in one process, each round in a random order, and compared within a round: a
machine is now faster, now slower, and ratios scatter less than times. The first round warms up. *x backbone*: median
ratio of wall-clock time to the frozen backbone, whose gradients go through the activations of all layers, and in
brackets the 95 % interval of that median, by order statistics. *processor*: the same of processor time, which a busy
machine changes less. Peak memory is of a process of its own for each: the whole process, and what comes on top once the
model is loaded. Backbones have random values in the sizes named; a training step includes AdamW. Pruned: the same
gates, fewer virtual tokens, in proportion to recorded gates. *Gives back*: part of what the prefix adds to the step's
time; empty where that is lost in the scatter of the rounds."""
HELD = {True: "yes", False: "no", None: "undecided"}


def read_results(folder: Path = FOLDER) -> dict[str, Any]:
    """All results that are there, by file name without its ending."""
    paths = {name: folder / f"{name}.json" for name in ("speed", *OTHERS)}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    speed = results["speed"]
    measured = {key: entry for key, entry in speed["cells"].items() if "timing" in entry}
    blocks = [HEAD, _machine(speed), *_goals(speed, measured)]
    if measured:
        blocks += ["## Training and inference\n", HOW + "\n", _overview(measured), *map(_cell, measured.items())]
    beside = {
        "copies of the cache": _copies,
        "start-up": _startup,
        "recording": _recording,
        "padding": _padding,
        "training options": _options,
        "COPA from start to finish": _copa,
    }
    blocks += [write(speed[name]) for name, write in beside.items() if name in speed]
    others = {"run_log": _run_log, "dashboard": _dashboard, "live": _live, "sweep": _sweep}
    blocks += [write(results[name]) for name, write in others.items() if name in results]
    return "\n".join(blocks)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _machine(speed: dict[str, Any]) -> str:
    threads = sorted({entry["timing"]["threads"] for entry in speed["cells"].values() if "timing" in entry})
    used = f", {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}" if threads else ""
    latest = _about(speed["machine"])
    others: dict[str, list[str]] = {}
    for name, about in speed.get("machines", {}).items():
        if _about(about) != latest:
            others.setdefault(_about(about), []).append(name)
    lines = [latest + used + ".", *(f"{', '.join(names)}: {about}." for about, names in others.items())]
    loads = speed.get("loads", {}).values()
    if loads:
        lines.append(f"Load average of the machine when a part ended, this benchmark included: {_range(loads)}.")
    return "\n\n".join(lines) + "\n"


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['date']}, {about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}, "
        f"{versions}"
    )


def _range(values: Collection[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _goals(speed: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    rows = [[goal.name, goal.reached, HELD[goal.held]] for goal in goals(speed, measured)]
    undecided = any(row[-1] == HELD[None] for row in rows)
    note = (
        ["Undecided: a 95 % interval holds values that reach the goal and values that do not.\n"] if undecided else []
    )
    return ["## Goals\n", _table(["goal", "reached", "held"], rows), *note] if rows else []


def _overview(measured: dict[str, Any]) -> str:
    """One table of all cells: median ratios to the frozen backbone."""
    columns = [name for name in names([CELLS[key] for key in measured]) if name != BACKBONE]
    rows = []
    for key, entry in measured.items():
        contenders = {**entry["timing"]["contenders"], **_elsewhere(entry)}
        rows.append(
            [key, *(f"{contenders[name]['ratio']['median']:.3f}" if name in contenders else "" for name in columns)]
        )
    return "Median time of a step as a multiple of the frozen backbone's:\n\n" + _table(["", *columns], rows)


def _elsewhere(entry: dict[str, Any]) -> dict[str, Any]:
    """The library ``adapters``, where it was measured; its ratio is to the backbone of its own transformers."""
    other = entry["adapters"]
    return {ADAPTERS: other["contenders"][ADAPTERS]} if isinstance(other, dict) else {}


def _cell(item: tuple[str, dict[str, Any]]) -> str:
    key, entry = item
    cell, timing = CELLS[key], entry["timing"]
    batch, length = cell.shape
    pruned_from = full_name(cell)
    rows = []
    for name, found in {**timing["contenders"], **_elsewhere(entry)}.items():
        memory = entry["memory"].get(name)
        ratio = found["ratio"]
        rows.append(
            [
                name,
                f"{found['wall_ms']['median']:,.1f}",
                f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})",
                f"{found['cpu_ratio']['median']:.3f}",
                f"{found['to_peft']['median']:.3f}" if "to_peft" in found else "",
                f"{memory['peak_mb']:,.0f}" if memory else "",
                f"{memory['over_model_mb']:,.0f}" if memory else "",
                "" if found.get("gives_back") is None else f"{found['gives_back']:.0%}",
            ]
        )
    header = ["", "ms", "x backbone", "processor", "x PEFT", "peak MB", "over the model MB", "gives back"]
    lines = [f"### {key}\n", f"B{batch} T{length}, {timing['rounds']} rounds; pruned from *{pruned_from}*."]
    other = entry["adapters"]
    if isinstance(other, dict):
        its = other["contenders"][BACKBONE]["wall_ms"]["median"]
        lines.append(
            f"adapters is held against the backbone of its own transformers {other['versions']['transformers']} "
            f"({its:,.1f} ms)."
        )
    else:
        lines.append(f"adapters: {other}.")
    return "\n".join([*lines, "", _table(header, rows)])


def _copies(found: dict[str, Any]) -> str:
    kinds = list(found["tensors"][BACKBONE])
    rows = [[name, *(str(found["tensors"][name][kind]) for kind in kinds)] for name in (BACKBONE, STATIC, PER_POSITION)]
    return (
        "## What a decoding step copies of the key/value cache\n\n"
        f"Tensors as large as one layer's cached keys that the step makes ({found['cell']}, {found['layers']} layers). "
        "A DynamicCache appends by copying itself. This is sdpa, transformers' default. With eager, flash or flex "
        "attention, and with a short cache, static gates are put in front of it, which copies it; gates per position "
        "never do.\n\n" + _table(["", *kinds], rows)
    )


def _seconds(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f}, {spread['n']} starts)"


def _startup(found: dict[str, Any]) -> str:
    lines = ["## Start-up\n", "Seconds: median, smallest and largest.\n"]
    for name, each in found["commands"].items():
        loaded = ", ".join(f"{package} {ms:.0f} ms" for package, ms in each["packages_ms"].items())
        lines.append(
            f"- `{name}`: {_seconds(each['wall_s'])}; processor {each['cpu_s']['median']:.2f}. torch is "
            f"{'' if each['torch'] else 'not '}loaded. Of the imports, by package: {loaded}."
        )
    lines.append(
        f"- the app's server, until it listens (looked at every 0.1 s): {_seconds(found['app_listens_s'])}. "
        "What a page then takes is under *Dashboard*.\n"
    )
    return "\n".join(lines)


def _recording(found: dict[str, Any]) -> str:
    batch, length = found["batch"]
    return (
        "## Recording gates\n\n"
        f"{found['model']}, B{batch} T{length}, {found['num_virtual_tokens']} virtual tokens, {found['pairs']} pairs "
        f"of steps: with recording {found['ratio']:.4f} times the processor time without (median of pairs, which "
        f"scatter); recording itself takes {found['record_ms']:.2f} ms of a step of {found['step_cpu_ms']:.0f} ms, a "
        f"factor of {found['ratio_from_record']:.4f}.\n"
    )


def _padding(found: dict[str, Any]) -> str:
    rows = []
    for task, each in found.items():
        before, after = each["train, random batches"], each["train, grouped by length"]
        numbers = [f"{each['train, real']:,}", f"{before:,}", f"{after:,}", f"{before / after:.2f}"]
        before, after = each["validation, in its own order"], each["validation, longest first"]
        rows.append([task, *numbers, f"{before:,}", f"{after:,}", f"{before / after:.2f}"])
    header = ["", "train: real", "random batches", "grouped by length", "times less"]
    header += ["validation: own order", "longest first", "times less"]
    return (
        "## Padding\n\nSub-words that an epoch computes, counted. Trainings group by length and evaluate the longest "
        "texts first.\n\n" + _table(header, rows)
    )


def _options(found: dict[str, Any]) -> str:
    rows = []
    for name, each in found["options"].items():
        ratio = each["ratio"]
        spread = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
        rows.append([name, f"{each['wall_ms']['median']:,.1f}", spread, f"{each['cpu_ratio']['median']:.3f}"])
    flags = " and ".join(found["cpu_bfloat16"]) or "no instructions"
    return (
        "## Options of training on a CPU\n\nA training step of MiniLM's size, B16 T128, 20 virtual tokens, hidden "
        f"gates, {found['rounds']} rounds. This processor has {flags} for bfloat16.\n\n"
        + _table(["", "ms", "x default", "processor"], rows)
    )


def _copa(found: dict[str, Any]) -> str:
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in found["validation"].items())
    return (
        "## COPA from start to finish\n\n"
        f"`python -m apt_core train --task copa --data-dir DIR`: {found['wall_s']:.0f} s in all, measuring included, "
        f"of which training {found['training_s']:.0f} s ({found['steps']} steps); processor {found['cpu_s']:.0f} s, "
        f"{found['threads']} threads. Validation: {metrics}.\n"
    )


def _run_log(found: dict[str, Any]) -> str:
    goals = {name: each["goal"] for name, each in found["goals"].items()}
    sizes = found["sizes"].values()
    rows = [
        _judged(
            f"{what} of the whole run (ms)", goals[key], [size["run log, whole run"]["run log"][key] for size in sizes]
        )
        for what, key in (("one step", "step_ms"), ("one trace", "trace_ms"))
    ]
    for name in ("TensorBoard", "TensorBoard, checksums in C"):
        for what, key in (("one step", "step_ms"), ("one trace", "trace_ms")):
            times = [size["all stores, same rows"][f"times faster than {name}"][key] for size in sizes]
            goal = goals["times_faster_than_tensorboard"]
            rows.append(_judged(f"{what}, opening included: times faster than {name}", goal, times, at_least=True))
    training = found["training"]
    return (
        "## Run log\n\nFrom `python -m benchmarks.run_log`: steps x layers x virtual tokens, files that the system has "
        "in memory. TensorBoard holds fewer steps; once it has loaded them all, one step takes it less time than ours "
        "does.\n\n"
        + _table(["", "goal", *found["sizes"], "held"], rows)
        + f"\nA training step that records takes {training['ratio_from_record']:.4f} times one that does not, by the "
        f"time of the recorder; {training['ratio']:.4f} by pairs of steps, which scatter more. Goal: "
        f"{goals['training_step_ratio']:g}.\n"
    )


def _judged(name: str, goal: float | None, values: list[float], at_least: bool = False) -> list[str]:
    """A row of a table: a goal, what was reached in each column, and whether the goal was in all of them."""
    held = all(value >= goal if at_least else value <= goal for value in values) if goal is not None else None
    judged = {None: "", True: "yes", False: "no"}[held]
    return [name, "" if goal is None else f"{goal:g}", *(f"{value:,.4g}" for value in values), judged]


def _dashboard(found: dict[str, Any]) -> str:
    sizes = {name: each for name, each in found.items() if " x " in name}
    goals = found["goals"]
    rows = []
    for name in next(iter(sizes.values())):
        goal = next(
            (goals[key] for key in goals if name == key or name.startswith(f"{key.removesuffix(' (ms)')},")), None
        )
        row = _judged(name, goal, [_middle(each[name]) for each in sizes.values()])
        rows.append([*row[:2], *(_with_spread(each[name]) for each in sizes.values()), row[-1]])
    sessions = found["sessions"]
    ratio = sessions["8 sessions (ms)"]["median"] / sessions["1 session (ms)"]["median"]
    pages = "; ".join(f"{name.removesuffix(' (ms)')} {each['median']:.0f} ms" for name, each in found["pages"].items())
    return (
        "## Dashboard\n\nFrom `python -m benchmarks.dashboard`, in a real Chromium on the same cores; steps x layers x "
        "virtual tokens; median, smallest and largest.\n\n"
        + _table(["", "goal", *sizes, "held"], rows)
        + f"\nOver both: at most {found['highest memory (MB)']:g} MB of memory (goal {goals['memory (MB)']:g}); a "
        f"slider step of eight sessions at once takes {ratio:.2f} times one alone (goal "
        f"{goals['8 sessions against 1']:g}). Changing pages: {pages}.\n"
    )


def _middle(value: float | dict[str, float]) -> float:
    return value["median"] if isinstance(value, dict) else value


def _with_spread(value: float | dict[str, float]) -> str:
    spread = f" ({value['min']:,.3g} to {value['max']:,.3g})" if isinstance(value, dict) else ""
    return f"{_middle(value):,.3g}{spread}"


def _live(found: dict[str, Any]) -> str:
    return (
        "## Live runs\n\n"
        f"From `python -m benchmarks.live`: {found['kills']} kills in {found['seconds']:.0f} s, at most "
        f"{found['most steps lost in a kill']} steps lost in one; {found['reads']:,} reads, "
        f"{len(found['torn or wrong reads'])} of them torn or wrong; {len(found['errors on pages'])} errors on pages.\n"
    )


def _sweep(found: dict[str, Any]) -> str:
    first = found["sweeps"][0]
    rows = [
        [str(each["slots"]), f"{each['seconds of the command']:.0f}", f"{each['mean seconds of a training']:.0f}"]
        for each in found["sweeps"]
    ]
    ratios = "; ".join(f"{name}: {ratio['seconds of the command']:.2f}" for name, ratio in found["ratios"].items())
    return (
        f"## Sweeps on several slots\n\nFrom `python -m benchmarks.sweep`: the same {first['trainings']} trainings, "
        f"one thread each, {found['cores']} cores. Time of the whole command, {ratios}.\n\n"
        + _table(["slots", "command (s)", "a training (s)"], rows)
    )
