"""What several commands share: options, exit codes, the console, JSON."""

import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rnnstudy.errors import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rnnstudy.store.stored_run import RunIndex


class AnyPath(click.Path):
    """A path, of something that is there or not. Refuses names that no file can have, and what cannot be looked at."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self.fail(f"{shown(str(path))} cannot be used: {reason}", param, ctx)
        return path


FOLDER = AnyPath(path_type=Path)

SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 when every run finished or diverged."""

PIPED_WIDTH = 1000
"""Columns where the output is no terminal: each row of a table stays on one line, for other programs."""

as_json = click.option("--json", "json_", is_flag=True, help="Print one JSON document instead of a table.")

storage_option = click.option(
    "--storage",
    metavar="URL",
    envvar="RNNSTUDY_STORAGE",
    show_envvar=True,
    help="Where searches keep their studies. Default: mlruns/optuna.db.",
)
"""Other users of the machine can read a command line, but not an environment: a password belongs there."""


def make_console(*, stderr: bool = False) -> "Console":
    """Where tables are printed: as wide as the terminal, without a limit in a pipe or a file."""
    from rich.console import Console

    # Without markup: names in brackets come from users, too.
    console = Console(stderr=stderr, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def make_table(
    headings: Iterable[str],
    left: Collection[str] = (),
    *,
    whole: Collection[str] = (),
    vertical: Literal["top", "bottom"] = "top",
) -> "Table":
    """A table without lines; the columns in `left` are aligned there, the others at the right.

    Where the terminal is too narrow, cells are wrapped between words, except those of the columns in `whole`;
    `vertical` says where the shorter cells of a row, and headings, then stand.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        kept = heading in whole
        justify = "left" if heading in left else "right"
        table.add_column(heading, justify=justify, no_wrap=kept, overflow="fold", vertical=vertical)
    return table


def say(line: str) -> None:
    """Print one line as it is, without colours; a terminal that is too narrow shows it wrapped between words.

    Not a line with a command (between backquotes), which is to be copied.
    """
    console = make_console()
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal or "`" in line)


def print_parts(*parts: "Table | str") -> None:
    """Print tables and lines; empty lines are left out."""
    for part in parts:
        if isinstance(part, str):
            say(part) if part else None
        else:
            make_console().print(part)


def say_damaged(store: "RunIndex", keys: Collection[str] | None = None) -> None:
    """Print a line on standard error for each run (of `keys`) that is damaged in the store."""
    for line in store.damaged(keys).values():
        click.echo(f"rnnstudy: {line}", err=True)


def print_json(document: Any) -> None:
    """Print a document as JSON; NaN and missing values are null."""
    click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(name): _plain(one) for name, one in value.items()}
        case list() | tuple() | set():
            return [_plain(one) for one in value]
        case Path():
            return str(value)
        case str() | None:
            return value
    # A number of numpy or pandas, too; a missing one is not equal to itself, or cannot say.
    plain = getattr(value, "item", lambda: value)()
    return None if str(plain) in ("nan", "<NA>", "inf", "-inf") else plain


def which_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select runs of an experiment file."""
    example = "Set a field of every run, for example training.steps=500. Repeatable."
    words = "Seconds; minutes on a laptop; the published sizes."
    scales = click.Choice(["smoke", "desk", "paper"])
    only = click.option("--only", metavar="KEY", multiple=True, help="Only the runs whose key begins so. Repeatable.")
    settings = click.option("--set", "settings", metavar="FIELD=VALUE", multiple=True, help=example)
    scale = click.option("--scale", type=scales, default="desk", show_default=True, help=words)
    return scale(settings(only(command)))
