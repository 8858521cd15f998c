"""``pydoc-topic``: which area of Python's standard library does a docstring come from? Built in, real text.

Nine areas along the chapters of the library reference; every area has the same number of docstrings in every split.
"""

from __future__ import annotations

from apt_core.errors import AptValueError
from apt_core.tasks.base import TaskData
from apt_core.tasks.pydoc_source import SPLITS, digest, docstrings, read_modules, split_by_module, without_repetitions

AREAS = {
    "concurrency": "asyncio multiprocessing concurrent threading queue sched subprocess selectors _threading_local",
    "internet": "http urllib wsgiref socketserver socket ssl ftplib poplib imaplib smtplib nntplib telnetlib xmlrpc "
    "webbrowser cgi cgitb ipaddress",
    "mail-and-markup": "email mailbox mimetypes html xml plistlib base64 quopri mailcap",
    "numbers-and-dates": "statistics fractions numbers random _pydecimal _pydatetime datetime calendar zoneinfo "
    "_strptime colorsys",
    "data-types": "collections _collections_abc enum heapq bisect weakref _weakrefset typing copy pprint reprlib "
    "graphlib functools operator contextlib dataclasses abc types string copyreg",
    "files-and-archives": "pathlib shutil tarfile zipfile gzip bz2 lzma tempfile fileinput glob fnmatch os posixpath "
    "ntpath genericpath stat _pyio io filecmp linecache zipapp _compression pickle shelve dbm",
    "testing-and-debugging": "unittest doctest pdb bdb trace traceback timeit profile cProfile pstats tracemalloc "
    "pydoc warnings",
    "language-and-import": "ast dis importlib inspect tokenize symtable pkgutil runpy zipimport pyclbr code codeop "
    "pickletools modulefinder py_compile compileall site sysconfig venv",
    "text-and-command-line": "logging argparse optparse getopt cmd shlex configparser csv json difflib textwrap locale "
    "gettext codecs encodings re tomllib",
}
MAX_WORDS = 60
MIN_WORDS = 5
MAX_PER_AREA = {"train": 180, "validation": 40, "test": 60}
MIN_TOTAL = 1_000


def load() -> TaskData:
    """Builds the splits from the sources of the running Python.

    Raises:
        AptValueError: if this Python's standard library comes without enough of its sources.
    """
    labels = tuple(AREAS)
    area_of = {root: area for area, roots in AREAS.items() for root in roots.split()}
    found = without_repetitions(
        docstring for module, tree in read_modules(area_of) for docstring in docstrings(module, tree, MIN_WORDS)
    )
    by_area = {
        area: split_by_module([row for row in found if area_of[row.module.partition(".")[0]] == area])
        for area in labels
    }
    splits = {}
    for split in SPLITS:
        per_area = min(MAX_PER_AREA[split], *(len(by_area[area][split]) for area in labels))
        chosen = [
            (digest(docstring.id), label, docstring)
            for label, area in enumerate(labels)
            for docstring in sorted(by_area[area][split], key=lambda found: digest(found.id))[:per_area]
        ]
        splits[split] = [
            {"id": docstring.id, "text": " ".join(docstring.text.split()[:MAX_WORDS]), "label": label}
            for _, label, docstring in sorted(chosen, key=lambda row: row[:2])
        ]
    total = sum(map(len, splits.values()))
    if total < MIN_TOTAL:
        raise AptValueError(
            f"task: pydoc-topic found only {total} docstrings in this Python's standard library; accepted: at least "
            f"{MIN_TOTAL}. Use a Python that comes with its library's sources (python.org, conda, a full package)."
        )
    return TaskData("pydoc-topic", "sequence-classification", labels, splits, "the area of the standard library")
