"""The names of tags in MLflow's store.

MLflow's pages hide the tags named `mlflow.…`. What only this package reads of a run, such as its specification as JSON
or the number of the process that trains it, is stored under such names, so that a person sees the others. The rest of
this package, offline folders and the files of a run know each tag by its own name, `rnnstudy.…`; stores in which all
tags have those are read the same.
"""

from collections.abc import Mapping

OWN = "rnnstudy."
HIDDEN_OWN = f"mlflow.{OWN}"

INTERNAL = frozenset(
    OWN + name
    for name in (
        "code",
        "command",
        "experiment_file",
        "host",
        "pictures",
        "pid",
        "pid_space",
        "pid_started",
        "probes",
        "source",
        "spec",
    )
)
"""The tags that only this package reads."""


def spellings(name: str) -> tuple[str, ...]:
    """The names under which stores may hold the tag `name`.

    >>> spellings("rnnstudy.spec"), spellings("rnnstudy.key")
    (('mlflow.rnnstudy.spec', 'rnnstudy.spec'), ('rnnstudy.key',))
    """
    return (f"mlflow.{name}", name) if name in INTERNAL else (name,)


def stored_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags as they are stored. None of another's is taken for one of ours: those named like ours are left out.

    >>> stored_tags({"rnnstudy.key": "0", "rnnstudy.spec": "{}", "mlflow.rnnstudy.outcome": "x"})
    {'rnnstudy.key': '0', 'mlflow.rnnstudy.spec': '{}'}
    """
    return {spellings(name)[0]: value for name, value in tags.items() if not name.startswith(HIDDEN_OWN)}


def known_tags(stored: Mapping[str, str]) -> dict[str, str]:
    """Stored tags by the names that this package knows. Where a tag is there twice, the hidden one is the newer.

    >>> known_tags({"rnnstudy.key": "0", "mlflow.rnnstudy.spec": "{}", "rnnstudy.spec": "former"})
    {'rnnstudy.key': '0', 'rnnstudy.spec': '{}'}
    """
    shown = {name: value for name, value in stored.items() if not name.startswith(HIDDEN_OWN)}
    return shown | {spelt.removeprefix("mlflow."): stored[spelt] for spelt in stored if spelt not in shown}


def rename_known(tags: dict[str, str]) -> None:
    """The same in place, for tags that MLflow read: its entities cannot be given others."""
    known = known_tags(tags)
    tags.clear()
    tags.update(known)
