"""The paper's claims, measured again by one command: ``python -m benchmarks.paper --data-dir DIR --dry-run``.

Fine-tuning, P-tuning v2, APT, PT-2*, PT-2+ and APT without h, alpha or lambda, with all data and with few examples. It
says what it will cost, trains what ``benchmarks/results/paper.json`` lacks, as jobs, and writes that file and, from it,
``docs/results.md`` after every training. Called again it goes on; nothing that is in the file is trained again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from apt_core.command_line import run_typer, say
from apt_core.config import MAX_TOKENS_PER_LAYER, canonical_name
from apt_core.errors import bad_value
from apt_core.files import write_atomic
from benchmarks.paper_costs import cost_of, costs_text, speed_of
from benchmarks.paper_methods import METHODS, VARIANTS
from benchmarks.paper_page import page
from benchmarks.paper_plan import Request, check_request, counts
from benchmarks.paper_results import Grid, Results
from benchmarks.paper_runs import Where, do_all, places
from benchmarks.paper_settings import Options, Setting, Sizes, check_epochs, make_setting
from benchmarks.results_file import alone

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "paper.json"
PAGE = ROOT / "docs" / "results.md"
REHEARSAL = "rehearsal.json"
"""in the folder of the runs: where results of a few steps are, so that they are never taken for real ones"""

DRIVER = "driver"
"""in the folder of the runs: held while a call works on it"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=__doc__)
def paper(
    tasks: Annotated[
        str, typer.Option(help="comma-separated; NAME:HUB-NAME or NAME:HUB-NAME:CONFIGURATION for data of the Hub")
    ] = "copa,wnut17,pydoc-topic,pydoc-entities",
    data_dir: Annotated[
        str | None, typer.Option(help="folder with copa, wnut17, ...; the built-in tasks need none")
    ] = None,
    model: Annotated[str, typer.Option(help="backbones, comma-separated: folders, Hub names, or minilm")] = "minilm",
    methods: Annotated[str, typer.Option(help="comma-separated, of: " + ", ".join(METHODS))] = ",".join(
        method for method in METHODS if method not in VARIANTS
    ),
    shots: Annotated[
        str, typer.Option(help="sizes of the training split: full, or examples per class (in all without classes)")
    ] = "full,16,32",
    seeds: Annotated[int, typer.Option(min=1, help="seeds 1 to N")] = 5,
    grid_seeds: Annotated[
        int | None,
        typer.Option(min=1, help="of these, the first so many choose the learning rate on validation [default: 3]"),
    ] = None,
    learning_rates: Annotated[
        str, typer.Option(help="the grid, the same for every method; fine-tuning takes a hundredth of each")
    ] = "3e-3,1e-2,3e-2",
    epochs: Annotated[
        str, typer.Option(help="TASK=N or TASK/SHOTS=N, comma-separated; others as the task's default, or 120 steps")
    ] = "",
    num_virtual_tokens: Annotated[int, typer.Option(min=1, max=MAX_TOKENS_PER_LAYER, help="in every layer")] = 16,
    max_length: Annotated[int | None, typer.Option(min=4, help="sub-words per text [default: the task's]")] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="a rehearsal: one epoch on as few examples as give so many steps")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="trainings at once; of the processor one thread each")
    ] = 2,
    executor: Annotated[
        str, typer.Option(help="local, or ray: a cluster whose nodes see the folder of runs")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster's dashboard")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda")] = "auto",
    runs: Annotated[Path, typer.Option(help="folder of the runs and their jobs")] = Path("runs/paper"),
    results: Annotated[
        Path | None, typer.Option(help="JSON file [default: benchmarks/results/paper.json]; the page is beside it")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would cost, and end")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    where = Where(runs.resolve(), data_dir, device)
    if results is None:
        results = RESULTS if max_steps is None else where.runs / REHEARSAL
    results = results.resolve()
    if max_steps is not None and results == RESULTS:
        raise bad_value("results", str(results), "another file with --max-steps: a rehearsal is no result")
    page_path = PAGE if results == RESULTS else results.with_suffix(".md")
    options = Options(max_length, num_virtual_tokens, max_steps, _epochs(epochs), data_dir)
    sizes: dict[Setting, Sizes] = {}
    for name in _names("model", model):
        for size in _names("shots", shots):
            for task in _names("tasks", tasks):
                setting, found = make_setting(canonical_name(name), task, _shots(size), options)
                sizes[setting] = found
    check_epochs(sizes, options.epochs)
    grid_seeds = grid_seeds or min(3, seeds)
    rates = tuple(_number("learning-rates", rate, float) for rate in _names("learning-rates", learning_rates))
    request = Request(tuple(sizes), tuple(_names("methods", methods)), seeds, grid_seeds, rates)
    check_request(request)
    jobs = places(where.runs, executor, address, workers)
    if dry_run:
        say(_costs(request, sizes, Results(results), where, workers))
        return
    with alone(where.runs / DRIVER, "runs"), alone(results, "results"):
        known = Results(results)
        known.check_grids(request.settings, request.methods, Grid(rates, grid_seeds))
        say(_costs(request, sizes, known, where, workers))
        write_page = partial(_write_page, known, page_path)
        do_all(request, known, jobs, where, workers=workers, changed=write_page, say=say)
        write_page()
    say(f"results: {results}, page: {page_path}")


def _costs(request: Request, sizes: Mapping[Setting, Sizes], known: Results, where: Where, workers: int) -> str:
    """What is left to do, and what it will take."""
    left = counts(request, known)
    costs = [
        cost_of(setting, found, speed_of(setting, known, where.data_dir, where.device), left)
        for setting, found in sizes.items()
        if any(count.trainings or count.tests for count in left if count.setting == setting)
    ]
    return costs_text(costs, workers)


def _write_page(known: Results, path: Path) -> None:
    source = known.path.relative_to(ROOT).as_posix() if known.path.is_relative_to(ROOT) else known.path.name
    write_atomic(path, page(known.tables, source).encode())


def _names(field: str, text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise bad_value(field, text, "one name or more, separated by commas")
    return names


def _number(field: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise bad_value(field, text, "a number") from None


def _shots(text: str) -> int | None:
    if text == "full":
        return None
    number = _number("shots", text, int)
    if number < 1:
        raise bad_value("shots", text, "full, or a number from 1")
    return number


def _epochs(text: str) -> dict[str, int]:
    chosen = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        task, _, number = pair.partition("=")
        task = task.removesuffix("/full")
        chosen[task] = _number("epochs", number, int)
        if chosen[task] < 1:
            raise bad_value("epochs", pair, "TASK=N or TASK/SHOTS=N with N from 1")
    return chosen


if __name__ == "__main__":
    run_typer(app)
