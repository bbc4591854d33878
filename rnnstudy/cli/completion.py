"""Completion in the shell: a command that prints the script, and what KEY and NAMES may be."""

from typing import Literal, get_args

import click
from click.shell_completion import CompletionItem, get_completion_class

from rnnstudy.store.project import find_project

Shell = Literal["bash", "zsh", "fish"]

PROGRAM, VARIABLE = "rnnstudy", "_RNNSTUDY_COMPLETE"


def completion_script(app: click.Command, shell: Shell) -> str:
    """The lines that a shell runs to complete commands, options, files, run keys and reports."""
    made = get_completion_class(shell)
    assert made is not None, f"click knows {get_args(Shell)}"
    return made(app, {}, PROGRAM, VARIABLE).source()


def complete_report(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The reports whose names begin so, and what else `rnnstudy report` builds by name."""
    return [name for name in find_project().report_names() if name.startswith(incomplete)]


def complete_key(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys in the project's own store that begin so, each with its run's name."""
    from rnnstudy.spec import RnnstudyError
    from rnnstudy.store.mlflow_database import is_there, read_runs

    database = find_project().database
    try:
        runs = read_runs(database, None, False) if is_there(database) else []
    except RnnstudyError:
        # A store that cannot be read completes nothing; the command itself says why.
        return []
    names = {run.key: run.name for run in runs if run.key.startswith(incomplete)}
    return [CompletionItem(key, help=name) for key, name in sorted(names.items())]
