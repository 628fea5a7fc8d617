"""Tables on the terminal, as JSON and as CSV; progress bars; versions."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hardspike.errors import printable
from hardspike.files import write_text
from hardspike.log import quiet

__all__ = ["csv_cell", "print_table", "progress", "versions", "write_csv"]

WIDTH_OF_A_PIPE = 200
"""Characters. A pipe has no width: rich would assume 80 and fold; wide is what grep and a log want."""
NARROWEST = 6
"""Characters of a column, three of them its border. Below, a table of few rows lies on its side."""


def print_table(rows: list[dict], title: str = "", json_file: str | Path | None = None, extra: dict | None = None,
                csv_file: str | Path | None = None) -> None:
    """Print `rows` as a table; the same values, unrounded, go to `json_file`/`csv_file`.

    Columns are the keys of all rows, in the order in which they first appear; a row that lacks one has no value there.
    The JSON is `{"title", "rows", **extra}`; a file `-` is standard output. Floats print with four significant digits.
    Text is shown as it is: no markup is obeyed in it, and what would steer a terminal is escaped.

    Raises:
        HardspikeError: a file cannot be written.
    """
    sys.stdout and sys.stdout.write(_rendered(rows, title))
    if json_file:
        content = json.loads(json.dumps({"title": title, "rows": rows, **(extra or {})}, default=str),
                             parse_constant=lambda name: None)  # JSON has no NaN and no infinity
        write_text(json_file, json.dumps(content, indent=2))
    if csv_file:
        write_csv(csv_file, rows)


def write_csv(file: str | Path, rows: list[dict]) -> None:
    """Write `rows` as CSV, columns as in `print_table`, each value as `csv_cell`.

    Raises:
        HardspikeError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns = _columns(rows)
    writer.writerow([csv_cell(name) for name in columns])
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    write_text(file, text.getvalue())


def csv_cell(value: Any) -> Any:
    """`value` as a spreadsheet may read it: text that it would take for a formula gets an apostrophe in front;
    numbers stay numbers."""
    if isinstance(value, int | float) or value is None:
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _columns(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _rendered(rows: list[dict], title: str) -> str:
    """The table as text. It is printed by us, since rich ends the process where a pipe is closed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(printable(title), style="table.title" if rows else "")
    columns = _columns(rows)
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console() if terminal else Console(width=WIDTH_OF_A_PIPE)
    aside = len(rows) < len(columns) and console.width < NARROWEST * len(columns)
    table = Table(title=heading if title else None, title_justify="left", show_header=not aside)
    for key in columns if not aside else ():
        number = any(isinstance(row.get(key), int | float) for row in rows)
        table.add_column(Text(printable(str(key))), justify="right" if number else "left", overflow="fold")
    for row in rows if not aside else ():
        table.add_row(*(Text(_cell(row.get(key))) for key in columns))
    for key in columns if aside else ():
        table.add_row(Text(printable(str(key))), *(Text(_cell(row.get(key)), justify="right") for row in rows))
    with console.capture() as captured:
        console.print(table if rows else heading)
    return captured.get()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def progress(items: Iterable, description: str, **options):
    """A progress bar on standard error, shown only to a person (a terminal), gone when it is done.

    Returns:
        tqdm.tqdm: `items`, which count while they are gone through.
    """
    from tqdm import tqdm

    return tqdm(items, desc=printable(description), leave=False, disable=quiet() or None, dynamic_ncols=True, **options)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages` and of Python; "absent" for what is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
