from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from rnnstudy.run import Run
    from rnnstudy.sweep.experiment import Experiment


def repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def make_console() -> "Console":
    from rich.console import Console

    console = Console()
    # A table that does not fit is better wrapped by the terminal than cut.
    console.width = max(console.width, 120)
    return console


def say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def selected_runs(
    file: Path, scale: str, settings: Sequence[str], only: Sequence[str]
) -> "tuple[Experiment, list[Run]]":
    """The experiment of a file and the runs that the options leave of it."""
    from rnnstudy.spec import SpecError, nearest
    from rnnstudy.sweep.experiment import load_experiment
    from rnnstudy.sweep.grids import Scale, override

    experiment = load_experiment(file)
    runs = override(experiment.runs(Scale(scale)), settings)
    for beginning in only:
        if not any(run.key.startswith(beginning) for run in runs):
            hint = nearest(beginning, [run.key for run in runs]) or f"; rnnstudy list {file} shows them"
            raise SpecError(f"no run of {file} at scale {scale} has a key that begins with '{beginning}'{hint}")
    return experiment, [run for run in runs if not only or run.key.startswith(tuple(only))]


def which_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which runs of an experiment file are meant."""
    for option in (
        click.option("--only", metavar="KEY", multiple=True, help="Only the runs whose key begins so. Repeatable."),
        click.option(
            "--set",
            "settings",
            metavar="FIELD=VALUE",
            multiple=True,
            help="Set a field of every run, for example training.steps=500. Repeatable.",
        ),
        click.option(
            "--scale",
            type=click.Choice(["smoke", "desk", "paper"]),
            default="desk",
            show_default=True,
            help="Seconds; minutes on a laptop; the published sizes.",
        ),
    ):
        command = option(command)
    return command


FOLDER = click.Path(path_type=Path)


SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
