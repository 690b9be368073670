"""Building blocks of the pages: tables as HTML, Markdown and JSON, pictures, a self-contained page.

A table is one value with three renderings, so that the three files of a comparison cannot differ.
All text is escaped here, since names of folders and files come from anywhere. A page asks for
nothing outside itself, and forbids it to the browser.
"""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: {width}; margin: 2em auto; color: #222;
 padding: 0 1em }}
h2 {{ margin-top: 2em; border-bottom: 1px solid #ccc }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em 1em .25em 0; text-align: left; border-bottom: 1px solid #e4e4e4 }}
img {{ max-width: 100%; display: block; margin: 1em 0 }}
p, figcaption {{ max-width: 50em }} figure {{ margin: 1em 0 }}
p.note, figcaption {{ color: #555; font-size: 13px; margin: .3em 0 }}
{style}</style></head><body>
"""
# What Markdown reads as markup; an underscore within a word it leaves alone.
_MARKUP = re.compile(r"[\\|`*\[\]<>&~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
NONE = "\u2013"


class Interval(NamedTuple):
    """A number and the interval around it."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """A mean and the sample standard deviation around it."""

    mean: float
    std: float


Cell = str | int | float | Interval | Spread | Sequence[str] | None


class Table(NamedTuple):
    """Rows of cells; without rows, nothing is shown."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]  # of Cell, each row as long as the header
    about: str = ""  # a sentence above the table
    notes: Sequence[str] = ()  # sentences below it


def text(cell: Cell) -> str:
    """A cell as people read it; '–' for None. Bytes that are no UTF-8 become question marks."""
    match cell:
        case None:
            return NONE
        case Interval(value, low, high):
            return f"{value:.3f} ({low:.3f},\u00a0{high:.3f})"  # may break before the bracket only
        case Spread(mean, std):
            return f"{mean:.3f} ± {std:.3f}"
        case float():
            return f"{cell:.3f}" if abs(cell) >= 0.1 else f"{cell:.3g}"
        case list() | tuple():
            cell = ", ".join(map(str, cell))
    return str(cell).encode("utf-8", "replace").decode()


def escape(cell: Cell) -> str:
    """The `text` of a cell as HTML."""
    return html.escape(text(cell))


def to_html(table: Table) -> str:
    """The table under a heading; '' without rows."""
    if not table.rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows]
    body = "".join(f"<tr>{line}</tr>\n" for line in [head, *lines])
    notes = "".join(f'\n<p class="note">{escape(note)}</p>' for note in table.notes)
    head = f"<h2>{escape(table.title)}</h2>{_paragraph(table.about)}"
    return f"{head}\n<table>\n{body}</table>{notes}"


def _paragraph(about: str) -> str:
    return f"\n<p>{escape(about)}</p>" if about else ""


def to_markdown(table: Table) -> str:
    """The table under a heading; '' without rows. Line breaks within a cell become spaces."""
    if not table.rows:
        return ""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = [f"| {' | '.join(map(_markdown, row))} |" for row in rows]
    about = [_markdown(table.about), ""] if table.about else []
    notes = [line for note in table.notes for line in ("", _markdown(note))]
    return "\n".join([f"## {_markdown(table.title)}", "", *about, *lines, *notes]) + "\n"


def _markdown(cell: Cell) -> str:
    one_line = re.sub(r"[^\S\u00a0]+", " ", text(cell))  # but for the no-break space of `Interval`
    return _MARKUP.sub(r"\\\g<0>", one_line)


def to_json(table: Table) -> dict[str, Any]:
    """The table for JSON: numbers in full, an interval as {value, low, high}, None as null."""
    rows = [[_plain(cell) for cell in row] for row in table.rows]
    return table._asdict() | {"rows": rows}


def _plain(cell: Cell) -> Any:
    return cell._asdict() if isinstance(cell, Interval | Spread) else cell


def data_uri(picture: bytes, kind: str = "png") -> str:
    """An address that holds the picture file itself."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def section(title: str, pictures: Sequence[tuple[bytes, str]], about: str = "") -> str:
    """PNG files and their captions under a heading, as part of the page; '' without any."""
    figures = [
        f'<figure><img src="{data_uri(png)}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for png, caption in pictures
    ]
    head = f"<h2>{escape(title)}</h2>{_paragraph(about)}"
    return "\n".join([head, *figures]) if figures else ""


def document(
    title: str, body: Sequence[str], width: str = "62em", style: str = "", script: str = ""
) -> str:
    """A whole page of the parts in `body` that are not ''.

    `width` is CSS, the most it takes; `style` more CSS; `script` the only JavaScript that browsers
    run on it.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    head = _HEAD.format(title=escape(title), width=width, style=style, allowed=allowed)
    parts = [*filter(None, body), f"<script>{script}</script>" if script else ""]
    return head + "\n".join(parts) + "\n</body></html>\n"


def markdown_document(title: str, tables: Sequence[Table]) -> str:
    """A whole Markdown file of the tables that have rows."""
    parts = filter(None, map(to_markdown, tables))
    return "\n".join([f"# {_markdown(title)}\n", *parts])
