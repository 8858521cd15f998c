"""Where jobs run, as it is typed: what is accepted, and what is said where no cluster answers."""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apt_core.errors import AptError
from apt_core.jobs import LocalJobs, RayJobs, place
from apt_core.jobs.ray_client import checked_address

NOBODY = "http://127.0.0.1:9"
RUN = ["train", "--out", "run", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch) -> None:
    for name in ("APT_RAY_ADDRESS", "APT_RAY_STORAGE", "APT_RAY_CPUS", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://[::1]:443", "https://[::1]:443"),
    ],
)
def test_address_is_scheme_host_and_port(typed, address):
    assert checked_address(typed) == address


@pytest.mark.parametrize(
    "typed",
    [
        *("", "head", "head:8265", "http://head", "ray://head:10001", "http://:8265", "http://head:x", "http://head:0"),
        *("http://head:99999", "http://head:8265/jobs", "http://head:8265?x=1", "http://[:8265", "auto"),
    ],
)
def test_other_addresses_are_refused(typed):
    with pytest.raises(AptError, match=r"address: got .*; accepted: scheme, host and port of a Ray dashboard, such as"):
        checked_address(typed)


def test_login_in_an_address_is_refused_and_not_shown():
    with pytest.raises(AptError) as refused:
        checked_address("http://me:secret-word@head:8265")
    assert "secret-word" not in str(refused.value)


def test_place_is_this_machine_or_a_cluster(tmp_path, monkeypatch):
    here = place(tmp_path, slots=3)
    assert isinstance(here, LocalJobs)
    assert here.folder == tmp_path / ".jobs"
    assert place(tmp_path, executor="ray", address="http://a:1").address == "http://a:1"
    with pytest.raises(AptError, match="APT_RAY_ADDRESS: got None; accepted: scheme, host and port"):
        place(tmp_path, executor="ray")
    monkeypatch.setenv("APT_RAY_ADDRESS", "http://b:2")
    assert place(tmp_path, executor="ray").address == "http://b:2"
    assert isinstance(place(tmp_path), LocalJobs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "slurm"}, "executor: got 'slurm'; accepted: local or ray"),
        ({"address": NOBODY}, "address: got .*; accepted: nothing with --executor local"),
        ({"storage": "file:///x"}, "storage: got .*; accepted: nothing with --executor local"),
        ({"executor": "ray", "address": NOBODY, "slots": 2}, "slots: got 2; accepted: nothing with --executor ray"),
    ],
)
def test_options_of_the_other_place_are_refused(tmp_path, options, message):
    with pytest.raises(AptError, match=message):
        place(tmp_path, **options)


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> RayJobs:
    """On a cluster that does not answer."""
    pytest.importorskip("ray", reason="ray is an extra")
    monkeypatch.chdir(tmp_path)
    return RayJobs(NOBODY)


def test_cluster_that_does_not_answer_is_named_and_nothing_is_started(jobs, tmp_path):
    words = (
        f"address: got '{NOBODY}'; accepted: that of a Ray dashboard that answers.*Nothing answers there. Nothing was"
    )
    for request in (
        lambda: jobs.submit(RUN, "run"),
        jobs.list,
        lambda: jobs.report("0001-a"),
        lambda: jobs.cancel("0001-a"),
        lambda: jobs.retry("0001-a"),
        lambda: jobs.logs("0001-a"),
        lambda: jobs.follow("0001-a"),
        lambda: jobs.fetch("0001-a"),
    ):
        with pytest.raises(AptError, match=words):
            request()
    assert not list(tmp_path.iterdir())


def test_ids_that_are_none_are_not_asked_for(jobs):
    for job_id in ("../version", "a/b", "", "a b"):
        with pytest.raises(FileNotFoundError, match="accepted: an id that"):
            jobs.status(job_id)


def test_another_server_is_no_cluster(tmp_path):
    pytest.importorskip("ray", reason="ray is an extra")

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(AptError, match=rf"127.0.0.1:{server.server_port}'; accepted: that of a Ray dashboard"):
            RayJobs(f"http://127.0.0.1:{server.server_port}").list()
        server.shutdown()


def test_server_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is an extra")
    monkeypatch.setattr("apt_core.jobs.ray_client._ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(AptError, match=f"address: got '{address}'.*timed out"):
            RayJobs(address).list()


def test_address_that_ray_would_use_instead_is_refused(jobs, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(AptError, match=f"RAY_ADDRESS: got 'http://elsewhere:8265'; accepted: unset, or {NOBODY}"):
        jobs.list()
    monkeypatch.setenv("RAY_ADDRESS", f"{NOBODY}/")
    with pytest.raises(AptError, match="Nothing answers there"):
        jobs.list()


def test_bad_input_is_said_before_the_cluster_is_asked(jobs, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(AptError, match=r"out: got .*new or empty"):
        jobs.submit(RUN, "full")
    monkeypatch.setenv("APT_RAY_CPUS", "0")
    with pytest.raises(AptError, match="APT_RAY_CPUS: got '0'; accepted: processor cores that a job asks Ray for"):
        jobs.submit(RUN, "run")


def test_without_ray_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    jobs = place(tmp_path, executor="ray", address=NOBODY)
    with pytest.raises(AptError, match=r'as Ray is not installed here. Install it with: pip install "ray\[default\]'):
        jobs.list()
