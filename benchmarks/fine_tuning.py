"""Fine-tuning of all weights on the tasks of ``apt_core``, as a run of it: ``python -m benchmarks.fine_tuning train``.

The same training, encodings, metrics and choice of checkpoint as for prefixes, with lengths of 0 and every module of
the model among those that are trained and saved. What comes of it is resumed and evaluated by ``python -m apt_core``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apt_core import options
from apt_core.command_line import run_typer, say
from apt_core.config import AptConfig, TrainSettings
from apt_core.tasks import TASKS
from apt_core.tasks.source import DataSource

if TYPE_CHECKING:
    from apt_core.train import TrainJob

NEVER = 2**31
"""a step that no training comes to: no snapshot of all weights is kept"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__)


@app.callback()
def commands() -> None:
    """So that ``train`` is a word of its own, as for ``python -m apt_core``."""


@app.command("train")
def train_command(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="one of: " + ", ".join(TASKS))],
    out: Annotated[Path, typer.Option(help="new folder for the run")],
    model: Annotated[str, typer.Option(help="backbone: a folder, a Hub name, or minilm")] = "minilm",
    data_dir: options.DataDir = None,
    dataset_name: options.DatasetName = None,
    dataset_config_name: options.DatasetConfigName = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    seed: options.Seed = None,
    shots: options.Shots = None,
    device: options.Device = None,
    debug: options.Debug = False,
) -> None:
    """Train all weights of a backbone and its head on a task."""
    from apt_core.train import TrainJob, check_output, train

    check_output(out, resume=False)
    settings = options.given_settings(context, TrainSettings, {**TASKS[task].training, "snapshot_steps": (NEVER,)})
    data = options.given_settings(context, DataSource)
    job = TrainJob(task, out, model, AptConfig(), settings, data)
    train(replace(job, apt=all_weights(job)), say=say)


def all_weights(job: TrainJob) -> AptConfig:
    """Settings that put no prefix on the backbone of ``job`` and train every module of the task's model.

    Raises:
        AptError: if the data or the backbone cannot be loaded.
    """
    from apt_core.backbones import load_backbone
    from apt_core.sites import find_sites
    from apt_core.tasks import family_of
    from apt_core.train import load_job_data, quiet_transformers

    quiet_transformers()
    model = load_backbone(job.model, family_of(load_job_data(job)).auto_class).model
    modules = [name for name, module in model.named_children() if any(True for _ in module.parameters())]
    return AptConfig(prefix_lengths=(0,) * len(find_sites(model)), modules_to_save=tuple(modules))


if __name__ == "__main__":
    run_typer(app)
