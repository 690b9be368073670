"""Building blocks of the pages: tables as HTML, Markdown and JSON, figures, a self-contained page.

A table is one value with three renderings, so that the three files of a comparison cannot differ.
The pages are templates/, which escape what goes into them: names of folders and files come from
anywhere. A page asks for nothing outside itself, and forbids it to the browser.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")
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


class Embedded(NamedTuple):
    """A picture file that is part of the page."""

    address: str  # holds the file itself
    caption: str


class Section(NamedTuple):
    """Figures under a heading; without any, nothing is shown."""

    title: str
    figures: Sequence[Embedded]
    about: str = ""


def render_page(template: str, **values: Any) -> str:
    """The page or part that a file of templates/ makes of `values`, whose texts are escaped."""
    return environment().get_template(template).render(values)


@functools.cache
def environment() -> jinja2.Environment:
    """All text is escaped, a cell is shown as `text` says, and what is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda cell: cell if isinstance(cell, Markup) else text(cell),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(source=_source, allowed=_allowed)
    return environment


def _source(name: str) -> Markup:
    """A style or script of templates/, as it stands."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _allowed(script: str) -> Markup:
    """What the page lets the browser run: the one `script` of templates/, or nothing."""
    if not script:
        return Markup("'none'")
    digest = base64.b64encode(hashlib.sha256(_source(script).encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


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


def embedded(png: bytes, caption: str) -> Embedded:
    """A PNG file as part of a page."""
    return Embedded(data_uri(png), caption)


def markdown_document(title: str, tables: Sequence[Table]) -> str:
    """A whole Markdown file of the tables that have rows."""
    parts = filter(None, map(to_markdown, tables))
    return "\n".join([f"# {_markdown(title)}\n", *parts])
