"""What several commands share: options, exit codes, the console."""

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnstudy.errors import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


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


storage_option = click.option(
    "--storage",
    metavar="URL",
    envvar="RNNSTUDY_STORAGE",
    show_envvar=True,
    help="Where searches keep their studies. Default: mlruns/optuna.db.",
)
"""Other users of the machine can read a command line, but not an environment: a password belongs there."""


def make_console() -> "Console":
    """The terminal that tables are printed to."""
    from rich.console import Console

    console = Console()
    # A table that does not fit is wrapped by the terminal, which is better than cutting it.
    console.width = max(console.width, 120)
    return console


def make_table(headings: Iterable[str], left: Collection[str] = (), *, no_wrap: bool = False) -> "Table":
    """A table without lines; the columns in `left` are aligned there, the others at the right."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=no_wrap)
    return table


def say(line: str) -> None:
    """Print one line as it is, without colours."""
    make_console().print(line, highlight=False, markup=False, soft_wrap=True)


def which_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select runs of an experiment file."""
    example = "Set a field of every run, for example training.steps=500. Repeatable."
    words = "Seconds; minutes on a laptop; the published sizes."
    scales = click.Choice(["smoke", "desk", "paper"])
    only = click.option("--only", metavar="KEY", multiple=True, help="Only the runs whose key begins so. Repeatable.")
    settings = click.option("--set", "settings", metavar="FIELD=VALUE", multiple=True, help=example)
    scale = click.option("--scale", type=scales, default="desk", show_default=True, help=words)
    return scale(settings(only(command)))
