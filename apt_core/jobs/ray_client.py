"""A Ray cluster through its dashboard's address: what of it jobs need, and what goes wrong in one line. No torch.

Ray is an extra, and is loaded on first use. All goes through HTTP: the client is no part of the cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

import apt_core
from apt_core.errors import AptError, AptUnreachableError, AptValueError, bad_value, bad_value_text
from apt_core.secrets import redact

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ADDRESS_VARIABLE = "APT_RAY_ADDRESS"
INSTALL = 'pip install "ray[default]>=2.50"'
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60
"""the first job after a cluster's start takes Ray some seconds"""
_NODES_SECONDS = 20
_LONGEST_REASON = 500


def checked_address(address: str | None) -> str:
    """``scheme://host:port`` of a Ray dashboard; None: what ``APT_RAY_ADDRESS`` says.

    Raises:
        AptValueError: if it is something else.
    """
    field, received = (
        ("address", address) if address is not None else (ADDRESS_VARIABLE, os.environ.get(ADDRESS_VARIABLE))
    )
    with contextlib.suppress(ValueError):
        parts = urlsplit(received or "")
        plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port and plain:
            return f"{parts.scheme}://{parts.netloc}"
    accepted = "scheme, host and port of a Ray dashboard, such as http://127.0.0.1:8265"
    raise bad_value(field, None if received is None else redact(received), accepted, "Or give --address.")


class RayCluster:
    """Requests to one cluster; nothing is asked before the first.

    Every method raises an ``AptUnreachableError`` that names the address if the cluster does not answer as Ray does,
    and an ``AptValueError`` if Ray is not installed here.

    Args:
        address: of its dashboard.
    """

    def __init__(self, address: str | None) -> None:
        self.address = checked_address(address)

    def jobs(self) -> dict[str, JobDetails]:
        """All submitted jobs that the cluster knows of, also those of others, by submission id."""
        with self._answers():
            return {details.submission_id: details for details in self._client.list_jobs() if details.submission_id}

    def details(self, job_id: str) -> JobDetails | None:
        """One job; None if the cluster has none of that id."""
        with self._answers():
            try:
                return self._client.get_job_info(job_id)
            except RuntimeError as problem:
                if "status code 404" in str(problem):
                    return None
                raise

    def submit(
        self,
        job_id: str,
        entrypoint: str,
        metadata: dict[str, str],
        *,
        num_cpus: int = 0,
        num_gpus: int = 0,
        variables: Mapping[str, str] = MappingProxyType({}),
        with_code: bool = False,
    ) -> bool:
        """Submits a job.

        Args:
            job_id: its submission id.
            entrypoint: for a shell.
            metadata: what Ray keeps with it.
            num_cpus: what it waits for; with no GPU either, it runs on the head node at once.
            num_gpus: likewise.
            variables: environment variables.
            with_code: put this ``apt_core`` on its path, so that the nodes run the same code as the client.

        Returns:
            Whether it was: Ray refuses an id that it has had, also of two that arrive at once.
        """
        environment: dict[str, Any] = {"env_vars": dict(variables)}
        if with_code:
            environment |= {"py_modules": [str(Path(apt_core.__file__).resolve().parent)], "excludes": ["__pycache__"]}
        client = self._client
        with self._answers(f"Whether {job_id} was queued, 'python -m apt_core jobs list' will say."):
            try:
                client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    metadata=metadata,
                    runtime_env=environment,
                    entrypoint_num_cpus=num_cpus,
                    entrypoint_num_gpus=num_gpus,
                )
            except RuntimeError as problem:
                if "already exists" in str(problem):
                    return False
                raise
        return True

    def stop(self, job_id: str) -> None:
        """Asks for the end of a job. One that waits ends only when it would have started."""
        with self._answers():
            self._client.stop_job(job_id)

    def logs(self, job_id: str) -> str:
        """All that a job printed; carriage returns arrive as line ends."""
        with self._answers():
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job printed and prints, piece by piece, until it has ended."""
        stream = self._client.tail_job_logs(job_id)

        async def next_part() -> str | None:
            return await anext(stream, None)

        # the loop runs in a thread of its own: whoever asks may have one already, as notebooks do
        with self._answers(), start_blocking_portal() as portal:
            while (part := portal.call(next_part)) is not None:
                yield part

    def has_gpus(self) -> bool:
        """Whether a node that is there now has a GPU."""
        with self._answers():
            from ray.util.state import list_nodes

            nodes = list_nodes(self._client.get_address(), detail=True, timeout=_NODES_SECONDS)
            return any(node.state == "ALIVE" and node.resources_total.get("GPU", 0) >= 1 for node in nodes)

    @cached_property
    def _client(self) -> JobSubmissionClient:
        for variable in _OVERRIDES:
            if os.environ.get(variable, self.address).rstrip("/") != self.address:
                raise bad_value(
                    variable,
                    redact(os.environ[variable]),
                    f"unset, or {self.address}",
                    "Ray would use it in place of the address that was given.",
                )
        with self._answers():
            return _client_class()(self.address)

    @contextlib.contextmanager
    def _answers(self, afterwards: str = "Nothing was started, and jobs of the cluster go on.") -> Iterator[None]:
        """Says of what goes wrong inside where, and what is true then."""
        try:
            yield
        except AptError:
            raise
        except Exception as problem:  # of Ray, requests and aiohttp, which share no base
            reason = " ".join(str(problem).split())[-_LONGEST_REASON:].rstrip(". ")
            if isinstance(problem, ConnectionError):
                reason = "Nothing answers there"
            accepted = "that of a Ray dashboard that answers, such as http://127.0.0.1:8265"
            text = bad_value_text("address", self.address, accepted, f"{redact(reason)}. {afterwards}")
            raise AptUnreachableError(text) from problem


def _client_class() -> type[JobSubmissionClient]:
    """Ray's client, which waits for no answer longer than it should."""
    try:
        import aiohttp  # noqa: F401 (what ray[default] adds to ray)
        from ray.job_submission import JobSubmissionClient
    except ImportError as problem:
        raise AptValueError(
            f"executor: got 'ray'; accepted: local, as Ray is not installed here. Install it with: {INSTALL}"
        ) from problem
    for module in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(module).setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            options.setdefault("timeout", (_CONNECT_SECONDS, _ANSWER_SECONDS))
            return super()._do_request(method, endpoint, **options)

    return Client
