"""The building blocks of a report that is one HTML file: escaped texts without secrets, tables, the page's style."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from apt_core.secrets import redact

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""what a browser lets the page do: nothing that asks another address"""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --box: #f6f8fa;
  --prune: #1a7f37; --keep: #9a3412; --undecided: #5b4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa6b2; --line: #343b44; --paper: #10141a;
  --box: #1a2027; --prune: #56d364; --keep: #ffa570; --undecided: #e3c341; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 820px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; border-bottom: 1px solid var(--line); padding-bottom: 4px; }
p, li, figcaption, .facts td { overflow-wrap: anywhere; } td, th { overflow-wrap: break-word; }
.soft, figcaption, caption { color: var(--soft); font-size: 0.9rem; }
.answer { background: var(--box); border: 1px solid var(--line); border-left: 6px solid var(--mark); border-radius: 6px;
  padding: 14px 18px; margin: 20px 0; }
.answer p { margin: 0 0 6px; } .answer p:first-child { font-size: 1.1rem; font-weight: 600; }
.prune { --mark: var(--prune); } .keep { --mark: var(--keep); } .undecided { --mark: var(--undecided); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 18px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 4px; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 7em; } .facts tbody th { color: var(--soft); width: 30%; }
.number { text-align: right; } td.number { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; font-size: 0.82rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 18px 0 26px; }
.js-plotly-plot text { fill: var(--ink) !important; }
.js-plotly-plot .hoverlayer text { fill: #ffffff !important; }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path { stroke: var(--line) !important; }
@page { margin: 16mm; }
@media print {
  :root { color-scheme: light; --ink: #000000; --soft: #444444; --line: #cccccc; --paper: #ffffff; --box: #ffffff; }
  body { font-size: 11pt; } main { max-width: none; padding: 0; }
  .modebar { display: none !important; }
  figure, tr, .answer, pre { break-inside: avoid; } h2 { break-after: avoid; }
}
"""


def escape(text: str) -> str:
    """Any text as HTML that shows it, without secrets of the environment."""
    return html.escape(redact(text))


def header(title: str, said: str) -> str:
    """The first heading, and words below it."""
    return f"<header><h1>{escape(title)}</h1>{paragraph(said, 'soft')}</header>"


def joined(parts: Iterable[object]) -> str:
    """Values in a row, for one cell of a table; no HTML yet."""
    return ", ".join(map(str, parts))


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; ``kind`` is a class of ``STYLE``."""
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def items(texts: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def section(title: str, *parts: str) -> str:
    """A part of the page under its heading; ``parts`` are HTML already."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def code(lines: Sequence[str]) -> str:
    """Commands, one a line."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, one pair a row."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the row and whose others hold numbers as texts."""
    kinds = ["", *["number"] * (len(header) - 1)]
    head = "".join(
        f'<th scope="col"{_kind(kind)}>{escape(name)}</th>' for kind, name in zip(kinds, header, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f'<td class="number">{escape(value)}</td>' for value in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(drawn: str, caption: str) -> str:
    """A figure, HTML already, with words below it."""
    return f"<figure>{redact(drawn)}<figcaption>{escape(caption)}</figcaption></figure>"


def page(title: str, script: str, body: str) -> str:
    """The whole file.

    Args:
        title: of the browser's tab.
        script: the figure library.
        body: HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<script>{script}</script>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
