"""``python -m apt_core export | import | push``: adapters to and from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apt_core import options
from apt_core.command_line import say
from apt_core.errors import bad_value
from apt_core.run_format import check_new_folder


def export_command(
    run: Annotated[Path, typer.Argument(help="folder of a finished run with static gates, or none, and equal lengths")],
    out: Annotated[Path, typer.Option(help="new folder for the adapter")],
    format_name: Annotated[str, typer.Option("--format", help="peft: a stock PREFIX_TUNING adapter")] = "peft",
    debug: options.Debug = False,
) -> None:
    """Write a run's adapter in the format of another library, after checking that its outputs are equal there."""
    if format_name != "peft":
        raise bad_value("format", format_name, "peft")
    check_new_folder(out)

    from apt_core.evaluate_run import load_run
    from apt_core.peft_adapter import export_peft

    export_peft(load_run(run), out)
    print(f"{out}: load it with peft.PeftModel.from_pretrained(backbone, {str(out)!r})")


def import_command(
    adapter: Annotated[Path, typer.Argument(help="folder that PEFT's prefix tuning saved")],
    out: Annotated[Path, typer.Option(help="new folder for the adapter in this project's format")],
    model: Annotated[
        str | None, typer.Option(help="the backbone it was trained on [default: the one it names]")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Turn a PEFT prefix tuning adapter into one of ours, after checking that its outputs are equal.

    To train on from one, with gates put on top: train --init-adapter ADAPTER.
    """
    check_new_folder(out)

    from apt_core.peft_adapter import import_adapter
    from apt_core.train import quiet_transformers

    quiet_transformers()
    import_adapter(adapter, out, model=model, say=say)
    print(f"{out}: load it with apt_core.AptModel.from_pretrained({str(out)!r})")


def push_command(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hugging Face Hub; made if it does not exist")],
    private: Annotated[bool, typer.Option("--private", help="a repository that is made is for you only")] = False,
    debug: options.Debug = False,
) -> None:
    """Upload a run's adapter, with a model card that tells its results, to the Hugging Face Hub.

    Uses the token of 'hf auth login' or HF_TOKEN. Neither predictions nor text of the data are uploaded.
    """
    from apt_core.push_run import push_run

    print(push_run(run, repo_id, private=private))
