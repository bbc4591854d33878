"""A ready-made view of an experiment in MLflow's own page: which charts and columns it opens with.

MLflow stores a view that is shared by a link in a tag of the experiment. The format of that tag is not documented: all
that depends on it is in this file, and used only with the version of MLflow it was found in, `MLFLOW`. With another
version the links open the same page without the view.
"""

import base64
import json
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from rnnstudy.figures.style import shade, style

MLFLOW = "3.17"
"""The minor version of MLflow that the views are for."""

VIEW = "rnnstudy"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

MOST_RUNS = 100
"""How many runs MLflow's page loads at first, newest first; a click on *Load more* loads as many again."""

REPRESENTATIVE = "rnnstudy.representative"
"""The tag of the runs that are shown at first in an experiment of more than `MOST_RUNS`."""

FILTER = f"tags.\"{REPRESENTATIVE}\" = 'yes'"
"""The text in the page's search field then: when it is cleared, the page lists all runs."""

COLOUR_TAG = "mlflow.runColor"
"""MLflow's tag for the colour of a run, in all charts and lists."""

GROUPED_BY = ("cell", "length")
"""Runs are always told apart by these parameters; see `grouping`."""

MOST_GROUPS = 12
"""The most settings that are told apart where not all runs can be shown."""

SEEDS = ("seed", "data_seed")
"""The parameters in which runs of one setting differ."""

Parameters = Mapping[str, str]
"""A run's parameters, as MLflow stores them."""

COLUMNS = (
    *(f"params.`{name}`" for name in ("cell", "length", "seed", "learning_rate")),
    *(f"metrics.`summary/{name}`" for name in ("solved", "steps_to_solve", "error")),
    *(f"metrics.`summary/{name}_{stage}`" for name in ("half_life", "log10_ratio") for stage in ("initial", "final")),
)

_TEMPLATES: dict[str, Any] = json.loads(Path(__file__).with_name("view.json").read_text(encoding="utf-8"))
"""What MLflow's page stores of a view, a section and the two kinds of chart; null is what `view_state` fills in."""

SECTIONS: Mapping[str, Sequence[str]] = _TEMPLATES["sections"]
"""Section to the metrics it shows, one chart each; metrics that no run has are left out. All gradients are log10."""

REST = "Everything else"
"""A folded section for all other metrics. Without it MLflow would show them in charts above all sections."""


def supported(version: str) -> bool:
    """Whether the views are for this version of MLflow."""
    return version.split(".")[:2] == MLFLOW.split(".")


def experiment_url(address: str, experiment: str, *, with_view: bool) -> str:
    """The page of an experiment's runs. Without `workflowType` MLflow 3 opens its page for language models."""
    query = {"workflowType": "machine_learning", "compareRunsMode": "CHART"}
    if with_view:
        query["viewStateShareKey"] = VIEW
    return f"{address}/#/experiments/{experiment}/runs?{urlencode(query)}"


def grouping(runs: Sequence[Parameters]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(first, rest): the parameters that tell runs apart, in two lists.

    First are cell and length, then every other parameter in which the runs differ, as long as there are at most
    `MOST_GROUPS` combinations of values. The rest are the others, without seeds. A parameter that is determined by
    others, such as a bias that is chosen by length, is in neither list.
    """
    names = {name for run in runs for name in run} - {*GROUPED_BY, *SEEDS}
    lines: list[str] = list(GROUPED_BY)
    rest: list[str] = []
    # Short names come before dotted paths with the same values.
    for name in sorted(names, key=lambda name: (name.count("."), name)):
        if _count(runs, lines) < _count(runs, [*lines, name]) <= MOST_GROUPS:
            lines.append(name)
        elif _count(runs, [*lines, *rest]) < _count(runs, [*lines, *rest, name]):
            rest.append(name)
    # A part's class is redundant where one of its numbers already tells the runs apart.
    needed = _without_redundant(runs, lines, GROUPED_BY)
    return tuple(needed), tuple(_without_redundant(runs, [*needed, *rest], needed)[len(needed) :])


def colours(runs: Sequence[Parameters]) -> list[str]:
    """The colour of each run: that of its cell in the reports, lighter for a short task, darker for a long one."""
    lengths = sorted({float(run["length"]) for run in runs if "length" in run})
    found = []
    for run in runs:
        rank = lengths.index(float(run["length"])) if "length" in run else 0
        own = style(run.get("cell", "")).colour
        shaded = shade(own, rank, max(1, len(lengths)))
        # Half as far as in the reports, where the dash pattern tells lengths apart as well.
        red, green, blue = ((part + full) / 2 for part, full in zip(shaded, to_rgb(own), strict=True))
        found.append(to_hex((red, green, blue)))
    return found


def _count(runs: Sequence[Parameters], names: Sequence[str]) -> int:
    return len(set(settings(runs, names)))


def _without_redundant(runs: Sequence[Parameters], names: Sequence[str], kept: Sequence[str]) -> list[str]:
    """`names` without those that are determined by the others; `kept` are never removed."""
    left = list(names)
    for name in names:
        others = [other for other in left if other != name]
        if name not in kept and _count(runs, others) == _count(runs, left):
            left = others
    return left


def settings(runs: Iterable[Parameters], names: Sequence[str]) -> list[tuple[str, ...]]:
    """For each run the values of the parameters `names`; `null`, as in MLflow's page, where it has none."""
    return [tuple(run.get(name, "null") for name in names) for run in runs]


def representatives(runs: Sequence[Parameters], grouped_by: Sequence[str], last: Iterable[int] = ()) -> list[int]:
    """The positions of at most `MOST_RUNS` runs that represent all of them.

    Every setting (all parameters but the seeds) gets equally many runs, those of its lowest seeds. If there are more
    settings than runs can be shown, every line of the charts (the values of `grouped_by`) gets equally many settings,
    evenly spread. The positions in `last` are used only when a setting has no others.
    """
    if len(runs) <= MOST_RUNS:
        return list(range(len(runs)))
    names = sorted({name for run in runs for name in run} - set(SEEDS))
    table = pd.DataFrame({"setting": settings(runs, names), "line": settings(runs, grouped_by)})
    seeds = pd.to_numeric(pd.Series([run.get("seed") for run in runs]), errors="coerce")
    ranked = table.assign(last=table.index.isin(list(last)), seed=seeds).sort_values(["last", "seed"], kind="stable")
    by_setting = [list(group.index) for _, group in ranked.groupby("setting")]
    most = _equal_share([len(group) for group in by_setting])
    if most:
        return sorted(position for group in by_setting for position in group[:most])
    firsts = sorted(group[0] for group in by_setting)
    by_line = [list(group.index) for _, group in table.loc[firsts].groupby("line")]
    most = max(1, _equal_share([len(group) for group in by_line]))
    chosen = []
    for group in by_line:
        few = min(len(group), most)
        chosen += [group[number * len(group) // few] for number in range(few)]
    return sorted(chosen[:MOST_RUNS])


def _equal_share(sizes: Sequence[int]) -> int:
    """How many runs of each group can be shown without exceeding `MOST_RUNS`; a small group is shown whole."""
    share = 0
    while share < max(sizes) and sum(min(size, share + 1) for size in sizes) <= MOST_RUNS:
        share += 1
    return share


def packed_view(metrics: Iterable[str], shown: Sequence[str], *, filtered: bool) -> str:
    """The value of the tag `VIEW_TAG`; see `view_state`. Equal arguments give equal values."""
    state = view_state(metrics, shown, filtered=filtered)
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def view_state(metrics: Iterable[str], shown: Sequence[str], *, filtered: bool = False) -> dict[str, Any]:
    """The state of MLflow's page, in the format that MLflow itself writes. Each run is a line, in its own colour.

    Args:
        metrics: those that some run of the experiment has.
        shown: the parameters in which the runs differ: columns of the list of runs.
        filtered: show only the runs with the tag `REPRESENTATIVE`. The filter is here and not in the link: MLflow's
            page ignores a shared view when its link has a filter of its own.
    """
    columns = list(dict.fromkeys([*(f"params.`{name}`" for name in shown), *COLUMNS]))
    left = sorted(name for name in set(metrics) if not name.startswith("system/"))
    charts: list[dict[str, Any]] = []
    sections = []
    for title, wanted in {**_sections(left), REST: left}.items():
        there = [name for name in wanted if name in left]
        left = [name for name in left if name not in there]
        if there:
            section = {"uuid": _identity(title), "name": title, "display": title != REST}
            sections.append(_TEMPLATES["section"] | section)
            charts += [_chart(name, title) for name in there]
    page = _TEMPLATES["page"]
    return page | {
        "searchFilter": FILTER if filtered else "",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": {"attributes.`Run Name`": 260, **{name: 60 + 7 * len(name.split("`")[1]) for name in columns}},
        "compareRunCharts": charts,
        "compareRunSections": sections,
    }


def _sections(metrics: Sequence[str]) -> dict[str, list[str]]:
    """`SECTIONS` for the states that these runs have: the output state `h` (of every layer), and the others."""
    profiles = (name.removeprefix("profile/") for name in metrics if name.startswith("profile/"))
    states = sorted({name.removesuffix("_initial") for name in profiles if name.endswith("_initial")})
    by_kind = {
        "output": [name for name in states if name.split("_")[0] == "h"],
        "other": [name for name in states if name.split("_")[0] != "h"],
    }
    return {
        title: [
            template.format(output=name, other=name)
            for template in templates
            for name in by_kind["output" if "{output}" in template else "other"] or [""]
        ]
        for title, templates in SECTIONS.items()
    }


def _chart(metric: str, title: str) -> dict[str, Any]:
    chart = {"uuid": _identity(f"{title}: {metric}"), "metricSectionId": _identity(title), "metricKey": metric}
    if metric.startswith("summary/"):
        return _TEMPLATES["bar"] | chart
    return _TEMPLATES["line"] | chart | {"selectedMetricKeys": [metric]}


def _identity(text: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"rnnstudy:{text}").hex
