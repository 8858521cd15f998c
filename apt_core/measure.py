"""Measures a finished run: four importances, the model without each layer or token, and curves of removing tokens.

Nothing is trained. Everything is computed on the same examples, drawn from one split; ``measure_plan`` decides how many
and what, and each model is one pass over them.

Axes: L layers, P virtual tokens of a layer, N examples.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from apt_core.errors import AptError, bad_value
from apt_core.evaluate_run import load_run_with_data
from apt_core.importance import Importance, measure_importances
from apt_core.measure_format import Curve, Measures, Point, write_measures
from apt_core.measure_plan import IMPORTANCE_FORWARDS, Plan, epochs, left_out, make_plan
from apt_core.model import AptModel
from apt_core.passes import Batch, Passes
from apt_core.removal import order_of, tokens_kept, without_first
from apt_core.run_format import utc_now
from apt_core.tasks.base import TaskData
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob

WIDER_ON_GPU = 4
"""times the batch of a training step, for passes without gradient; a CPU would only pad more"""

Keep = Sequence[np.ndarray]
"""what ``tokens_kept`` takes"""


def measure_run(
    folder: Path,
    *,
    split: str = "validation",
    cost: float = 1.0,
    seed: int = 0,
    data: DataSource | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Measures:
    """Measures a run and writes its ``measures.json``.

    Args:
        folder: folder of a finished run with at least one virtual token.
        split: a split of the run's task.
        cost: allowance in training epochs; 0: no limit.
        seed: which examples are drawn, and the random orders.
        data: where the data is now, if not where the training found it.
        device: auto, cpu or cuda; None: as in training.
        progress: show a bar on stderr.

    Raises:
        AptError: if the run is not finished, has no virtual token, diverged or does not name its task, the split does
            not exist or the data is not to be found.
    """
    run = load_run_with_data(folder, split, data=data, device=device)
    begin = time.perf_counter()
    if run.info.total_tokens == 0:
        raise bad_value("run", str(folder), "a run with virtual tokens; without, there is nothing to remove")
    if not all(bool(values.isfinite().all()) for values in run.model.trained_state_dict().values()):
        raise bad_value("run", str(folder), "one whose trained values are finite: this training diverged")
    num_train = len(run.task.splits["train"])
    plan = make_plan(run.info.prefix_lengths, len(run.task.splits[split]), num_train, cost)
    measures = measure(
        run.model,
        run.task,
        split,
        run.tokenizer,
        plan,
        seed=seed,
        batch_size=run.job.training.batch_size,
        max_length=run.max_length,
        progress=progress,
    )
    measures.seconds = round(time.perf_counter() - begin, 3)
    write_measures(folder, measures)
    return measures


def measure_after_training(folder: Path, *, data: dict[str, str], say: Callable[[str], None]) -> None:
    """Measures a run that has just ended, and says in one line how that went; the run is finished whatever happens.

    Args:
        folder: of the run.
        data: where its data is, as fields of ``DataSource``; empty: where it says.
        say: receives the line.
    """
    again = f"'python -m apt_core measure {shlex.quote(str(folder))}'"
    try:
        measures = measure_run(folder, data=TrainJob.from_run(folder).data.moved(**data))
    except KeyboardInterrupt:
        say(f"measuring was interrupted; {again} does it again")
    except AptError as problem:
        say(f"note: not measured: {problem}")
    except Exception as problem:  # such as a full disk, or no memory left: the run itself is safe
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        say(f"note: measuring failed ({reason}); {again} tries it again, --debug shows where")
    else:
        say(f"measured what the virtual tokens are worth in {measures.seconds:.0f} s ({measures.cost:.1f} epochs)")


def measure(
    model: AptModel,
    task: TaskData,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    *,
    seed: int,
    batch_size: int,
    max_length: int,
    progress: bool = True,
) -> Measures:
    """Carries out a plan; the model is as it was afterwards.

    Args:
        model: with at least one virtual token, of the lengths in ``plan``.
        task: its data, with a ``train`` split.
        split: which examples are drawn from.
        tokenizer: of the model.
        plan: from ``make_plan``.
        seed: which examples are drawn, and the random orders.
        batch_size: of a training step.
        max_length: sub-words per text; longer ones are cut.
        progress: show a bar on stderr.
    """
    begin = time.perf_counter()
    available, num_train = len(task.splits[split]), len(task.splits["train"])
    drawn = np.sort(np.random.default_rng(seed).permutation(available)[: plan.num_examples])
    passes = Passes(model, task, split, drawn, tokenizer, max_length=max_length)
    wider = 1 if model.device.type == "cpu" else WIDER_ON_GPU
    was_training = model.training
    model.eval()
    with tqdm(
        total=plan.num_points, desc="measure", unit="pass", file=sys.stderr, disable=not progress, leave=False
    ) as bar:
        importance, full = measure_importances(model, passes, passes.batches(batch_size))
        bar.update()
        models = _Models(model, plan.lengths, passes, passes.batches(batch_size * wider), full, bar)
        empty = models.without_all_but(0)
        layers = [models.without_layer(layer) if plan.layers and n else None for layer, n in enumerate(plan.lengths)]
        curves = [models.curve(order, plan.sizes, importance, seed) for order in plan.orders]
        tokens = None
        if plan.tokens:
            tokens = [[models.without_token(layer, i) for i in range(n)] for layer, n in enumerate(plan.lengths)]
    model.train(was_training)
    forwards = plan.num_examples * (IMPORTANCE_FORWARDS + models.num_passes)
    notes = left_out(plan, available, num_train)
    if model.apt_config.token_gate == "none" and not model.apt_config.layer_scale:
        notes.append("This run has no gates: all virtual tokens are equal in 'gate', which orders them by their place.")
    return Measures(
        created_at=utc_now(),
        seconds=round(time.perf_counter() - begin, 3),
        cost=round(epochs(forwards, num_train), 4),
        seed=seed,
        split=split,
        data_hash=task.fingerprint(),
        metric_name=passes.family.metric_name,
        greater_is_better=passes.family.greater_is_better,
        prefix_lengths=list(plan.lengths),
        example_ids=passes.example_ids,
        examples_available=available,
        importance={name: [layer.tolist() for layer in values] for name, values in importance.items()},
        full=full,
        empty=empty,
        layers=layers,
        tokens=tokens,
        curves=curves,
        notes=notes,
    )


class _Models:
    """One model with fewer virtual tokens after the other; the same set of tokens is not run twice."""

    def __init__(
        self, model: AptModel, lengths: Sequence[int], passes: Passes, batches: list[Batch], full: Point, bar: tqdm
    ) -> None:
        self._model, self._lengths, self._passes, self._batches, self._bar = model, lengths, passes, batches, bar
        self._known = {_key([np.ones(length, bool) for length in lengths]): full}
        self.num_passes = 0

    def without_layer(self, layer: int) -> Point:
        return self._point([np.full(length, other != layer) for other, length in enumerate(self._lengths)])

    def without_token(self, layer: int, token: int) -> Point:
        keep = [np.ones(length, bool) for length in self._lengths]
        keep[layer][token] = False
        return self._point(keep)

    def without_all_but(self, kept: int, order: np.ndarray | None = None) -> Point:
        order = np.arange(sum(self._lengths)) if order is None else order
        return self._point(without_first(order, kept, self._lengths))

    def curve(self, name: str, sizes: list[int], importance: dict[str, Importance], seed: int) -> Curve:
        order = order_of(name, importance, seed)
        return Curve(order=name, kept=sizes, points=[self.without_all_but(kept, order) for kept in sizes])

    def _point(self, keep: Keep) -> Point:
        key = _key(keep)
        if key not in self._known:
            with tokens_kept(self._model, keep):
                self._known[key] = self._passes.point(self._batches)
            self.num_passes += 1
            self._bar.update()
        return self._known[key]


def _key(keep: Keep) -> bytes:
    return np.concatenate(keep).tobytes()
