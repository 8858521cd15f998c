"""Secrets of the environment: in no log, no ``run.json``, no report and no message, however they are spelt there."""

from __future__ import annotations

import html
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import report_page
from apt_core import command_line
from apt_core.jobs import Job, LocalJobs
from apt_core.jobs.job_files import LOG_FILE, read_job, write_job
from apt_core.jobs.log_file import follow, tail
from apt_core.run_format import RunInfo, read_run_info
from apt_core.run_writer import RunWriter
from apt_core.secrets import SHORTEST_SECRET, RedactedStream, redact, secret_values
from tests.apt_core.jobs.programs import until

SECRET = "hf_secretvalue"
AWKWARD = "p'a\"s<s>&w/ör d\\$x"
ENVIRONMENT = {"HF_TOKEN": SECRET, "DB_PASSWORD": AWKWARD, "HOME": "/home/somebody", "LANG": "C.UTF-8"}
MANY = settings(max_examples=100)
"""also on a busy machine"""
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "hf_token",
        "TOKEN",
        "GITHUB_TOKEN",
        "WANDB_API_KEY",
        "OPENAI_APIKEY",
        "SECRET_KEY",
        "CLIENT_SECRET",
        "SECRET_OF_MINE",
        "PGPASSWORD",
        "DB_PASSWD",
        "SSH_PASSPHRASE",
        "AZURE_CREDENTIALS",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ANYTHING",
    ],
)
def test_variables_whose_names_say_so_are_secret(name):
    assert secret_values({name: "abcdef-1"}) == ("abcdef-1",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("TOKENIZERS_PARALLELISM", "false-or-so"),
        ("MONKEY", "capuchin"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("HF_TOKEN", ""),
        ("HF_TOKEN", "x" * (SHORTEST_SECRET - 1)),
        ("AWS_PROFILE", "default"),
        ("AWS_VAULT", "research"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("SSL_KEY", __file__),
    ],
)
def test_other_variables_short_values_and_paths_are_not(name, value):
    assert secret_values({name: value}) == ()


@pytest.mark.parametrize(
    "spell",
    [
        str,
        repr,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        html.escape,
        quote,
        lambda text: quote(text, safe=""),
        shlex.quote,
        lambda text: shlex.join(["echo", text]),
        lambda text: f"https://example.com/?key={text}&x=1",
    ],
)
@pytest.mark.parametrize("secret", [SECRET, AWKWARD])
def test_secret_is_found_however_it_is_spelt(secret, spell):
    left = redact(f"before {spell(secret)} after", ENVIRONMENT)
    assert "***" in left
    assert left.startswith("before ")
    assert left.endswith(" after")
    assert not any(part in left for part in ("secretvalue", "p'a", "w/", "ör", "\\u00f6r", "%C3%B6r"))


@MANY
@given(
    secret=st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=SHORTEST_SECRET).filter(
        lambda text: len(text.strip()) >= SHORTEST_SECRET and not text.startswith(("/", "~"))
    ),
    around=st.text(max_size=8),
)
def test_no_secret_is_left_in_any_text(secret, around):
    environment = {"X_TOKEN": secret}
    assert secret.strip() not in redact(f"{around}{secret}{around}", environment)
    assert secret.strip() not in json.loads(redact(json.dumps({"said": f"a {secret} b"}), environment))["said"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://user:pa%20ss@host/x", "https://***@host/x"),
        ("git+ssh://git@host:22/x", "git+ssh://***@host:22/x"),
        ("s3://KEY:p@ss@bucket and http://a@b", "s3://***@bucket and http://***@b"),
        ("https://host/a@b?c=d@e", "https://host/a@b?c=d@e"),
        ("mail me@example.com", "mail me@example.com"),
        ("hf_" + "aB3" * 11 + ".", "***."),
        ("hf_hub_download and hf_short", "hf_hub_download and hf_short"),
        ("Authorization: Bearer abc.DEF-123=", "Authorization: Bearer ***"),
        ("plain text, 0.123 of 12 steps", "plain text, 0.123 of 12 steps"),
    ],
)
def test_logins_in_addresses_and_tokens_go_whatever_the_environment(text, left):
    assert redact(text, {}) == left


def test_secret_of_several_lines_is_found_line_by_line_and_in_one_line():
    environment = {"DEPLOY_KEY": PRIVATE_KEY}
    assert redact(f"a\n{PRIVATE_KEY}b", environment) == "a\n***\nb"
    assert redact(" ".join(PRIVATE_KEY.split()), environment) == "***"
    assert redact("got 9w0BAQEFAASCBKcwggSj here", environment) == "got *** here"


def test_environment_is_looked_at_when_something_is_written(monkeypatch):
    assert redact(f"x {SECRET}") == f"x {SECRET}"
    monkeypatch.setenv("LATER_TOKEN", SECRET)
    assert redact(f"x {SECRET}") == "x ***"


def test_stream_hands_on_all_but_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    behind = io.StringIO()
    stream = RedactedStream(behind)
    print("a", SECRET, {"token": SECRET}, file=stream, flush=True)
    stream.writelines([f"{SECRET}\n", "b\n"])
    assert stream.write(SECRET) == len(SECRET)
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        traceback.print_exc(file=stream)
    assert SECRET not in behind.getvalue()
    assert behind.getvalue().startswith("a *** {'token': '***'}\n***\nb\n***Traceback")
    assert not stream.isatty()
    assert stream.closed is behind.closed


@pytest.mark.parametrize("words", [[], ["--debug"]])
def test_no_command_prints_a_secret(words, monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def fail(debug: bool = typer.Option(False, "--debug")) -> None:
        print(f"using {SECRET}")
        raise RuntimeError(f"https://me:{SECRET}@host refused {SECRET}")

    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["program", *words])
    with pytest.raises(SystemExit) as ending:
        command_line.run_typer(app)
    said = capsys.readouterr()
    assert (ending.value.code, said.out) == (1, "using ***\n")
    assert "error: RuntimeError: https://***@host refused ***" in said.err
    assert ("Traceback" in said.err) is bool(words)
    assert SECRET not in said.err


def test_command_that_is_kept_has_no_secret(monkeypatch):
    monkeypatch.setenv("X_API_KEY", AWKWARD)
    monkeypatch.setattr(sys, "argv", ["program", "train", f"--text-column={AWKWARD}", f"s3://k:{SECRET}@b/x", "--json"])
    assert command_line.command_line() == "python -m apt_core train '--text-column=***' 's3://***@b/x'"


def test_report_shows_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("DB_PASSWORD", AWKWARD)
    told = [f"by {SECRET}", f"with {AWKWARD}"]
    parts = [
        report_page.header(told[0], told[1]),
        report_page.items(told),
        report_page.code(told),
        report_page.facts([(told[0], told[1])]),
        report_page.table(told[0], told, [told]),
        report_page.figure(f"<script>{json.dumps(told)}</script>", told[0]),
        report_page.section(told[1]),
    ]
    page = report_page.page(told[0], "", "".join(parts))
    assert page.count("***") == 18
    assert not any(part in page for part in (SECRET, html.escape(AWKWARD), json.dumps(AWKWARD)[1:-1]))


def test_end_of_a_log_has_no_secret_not_even_half_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    log = tmp_path / "log"
    log.write_text(f"\rstep 1 {SECRET}\rstep 2 {SECRET}\nusing {SECRET}\n")
    assert tail(log, 10) == "step 2 ***\nusing ***"
    rest = "x" * (256 * 1024 - 1 - len("value"))
    log.write_text(f"{SECRET}\n{rest}")  # what is read begins inside the secret
    assert tail(log, 10) == rest


def test_followed_log_has_no_secret_although_it_is_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    log, seen, over = tmp_path / "log", [], threading.Event()
    with log.open("a") as file:
        print("begin", SECRET[:6], end="", file=file, flush=True)
        thread = threading.Thread(target=lambda: seen.extend(follow(log, over.is_set)), daemon=True)
        thread.start()
        until(lambda: seen or thread.is_alive())
        print(SECRET[6:], "middle", file=file, flush=True)
        until(lambda: seen)
        print("no line end", SECRET, end="", file=file, flush=True)
    over.set()
    thread.join(60)
    assert "".join(seen) == "begin *** middle\nno line end ***"


def test_line_without_end_is_handed_on_before_it_ends(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * (3 * 2**20))
    parts = list(follow(log, lambda: True))
    assert len(parts) > 2
    assert "".join(parts) == log.read_text()


@pytest.mark.slow
def test_training_and_failing_upload_leave_the_token_nowhere(tmp_path, backbone_folder, monkeypatch):
    """Real jobs and commands with a token in their environment: every byte that they wrote or printed."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HF_TOKEN": SECRET,
        "MY_API_KEY": AWKWARD,
        "HF_ENDPOINT": "http://127.0.0.1:9",  # the port of 'discard': nobody answers
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "train.csv").write_text("text,label\n" + "good,a\nbad,b\nfine,a\npoor,b\n" * 5)
    jobs = LocalJobs(tmp_path / "runs" / ".jobs", slots=1)
    words = ["train", "--task", "text-classification", "--train-file", "train.csv", "--model", str(backbone_folder)]
    words += ["--epochs", "1", "--num-virtual-tokens", "2", "--device", "cpu", "--no-measure", "--out"]
    trained = jobs.submit([*words, "runs/trained"], tmp_path / "runs" / "trained")
    until(lambda: jobs.status(trained.id) == "finished" or jobs.status(trained.id) == "failed")
    assert jobs.status(trained.id) == "finished", jobs.logs(trained.id)
    failing = [sys.executable, "-m", "apt_core", "push", "runs/trained", "me/topic", "--debug"]
    environment = {**os.environ, "PYTHONPATH": str(Path(command_line.__file__).parents[1])}
    refused = subprocess.run(failing, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert refused.returncode == 2, refused.stderr
    assert "the Hub is not reached" in refused.stderr
    named = [sys.executable, "-m", "apt_core", *words, "runs/named", "--label-column", SECRET, "--text-column", AWKWARD]
    wrong = subprocess.run(named, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "***" in wrong.stderr
    printed = [refused.stdout, refused.stderr, wrong.stdout, wrong.stderr]
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"run.json", "job.json", LOG_FILE} <= {path.name for path in files}
    for content in [*(path.read_bytes() for path in files), *(text.encode() for text in printed)]:
        assert SECRET.encode() not in content
        assert AWKWARD.encode() not in content


def test_what_is_kept_of_a_failed_run_and_of_a_job_has_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    writer = RunWriter(tmp_path / "run", RunInfo(task="mine", num_layers=1, prefix_lengths=[2]))
    writer.fail(f"RuntimeError: https://me:{SECRET}@host refused {SECRET}")
    assert read_run_info(tmp_path / "run").error == "RuntimeError: https://***@host refused ***"
    (tmp_path / "0001-a").mkdir()
    write_job(tmp_path / "0001-a", Job("0001-a", ["train", f"--text-column={SECRET}"], "runs/a", "", str(tmp_path)))
    assert read_job(tmp_path / "0001-a").arguments == ["train", "--text-column=***"]
    for path in tmp_path.rglob("*.json"):
        assert SECRET not in path.read_text()
