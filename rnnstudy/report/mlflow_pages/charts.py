"""A ready-made view of an experiment in MLflow's own page: which charts and columns it opens with.

MLflow keeps a view that was shared by a link in a tag of the experiment. The form of that tag is not documented, so all
that is known of it stands in this file, and is used with the MLflow it was seen in: `MLFLOW`. With another one a link
opens the same page without the view.
"""

import base64
import json
import math
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

MLFLOW = "3.17"
"""The minor version of MLflow whose views these are."""

KEY = "rnnstudy"
TAG = f"mlflow.sharedViewState.{KEY}"

MOST_RUNS = 100
"""Runs that MLflow's page loads at first, the newest; more come when a person asks for them, as many at a time."""

REPRESENTATIVE = "rnnstudy.representative"
"""The tag of the runs that stand for all in an experiment of more than `MOST_RUNS`."""

FILTER = f"tags.\"{REPRESENTATIVE}\" = 'yes'"
"""What stands in the page's search field then: emptied, the page lists all runs again."""

GROUPED_BY = ("cell", "length")
"""The parameters that charts are always grouped by; see `grouping`."""

MOST_GROUPS = 12
"""Lines in one chart that can still be told apart."""

SEEDS = ("seed", "data_seed")
"""The parameters in which runs of the same setting differ."""

Parameters = Mapping[str, str]
"""A run's parameters, as MLflow keeps them."""

COLUMNS = (
    *(f"params.`{name}`" for name in ("cell", "length", "seed", "learning_rate")),
    *(f"metrics.`summary/{name}`" for name in ("solved", "steps_to_solve", "error")),
    *(f"metrics.`summary/{name}_{stage}`" for name in ("half_life", "log10_ratio") for stage in ("initial", "final")),
)

SECTIONS: Mapping[str, Sequence[str]] = {
    "Profile (step = lag)": (
        "profile/{output}_initial",
        "profile/{output}_final_normalised",
        "profile/{other}_initial",
        "profile/{other}_final_normalised",
    ),
    "Gradient through time": (
        "through_time/{output}_first",
        "through_time/{output}_last",
        "through_time/{other}_first",
    ),
    "Gradient during training": ("gradient/global_before", "gradient/global_after", "gradient/W_hh_before"),
    "Learning": ("learning/error", "learning/loss", "summary/solved", "summary/steps_to_solve"),
}
"""Section to the metrics it shows, one chart each; those that no run has are left out. All gradients are log10."""

REST = "Everything else"
"""A folded section: metrics that are in none would get charts of MLflow's own choice above all others."""


def supported(version: str) -> bool:
    """Whether `version` of MLflow is one that these views are for."""
    return version.split(".")[:2] == MLFLOW.split(".")


def link(address: str, experiment: str, *, with_view: bool) -> str:
    """The page of an experiment's runs. Without `workflowType` MLflow 3 opens its page for language models."""
    asked = {"workflowType": "machine_learning", "compareRunsMode": "CHART"}
    if with_view:
        asked["viewStateShareKey"] = KEY
    return f"{address}/#/experiments/{experiment}/runs?{urlencode(asked)}"


def grouping(runs: Sequence[Parameters]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(grouped by, averaged over): the parameters that give each chart its lines, and those that a line averages over.

    Cell and length, then every other parameter by which the runs differ, as long as there are at most `MOST_GROUPS`
    lines; those that would make more are averaged over, as seeds always are. A parameter that follows from others, such
    as a bias that was chosen by the length, is in neither.
    """
    names = {name for run in runs for name in run} - {*GROUPED_BY, *SEEDS}
    lines: list[str] = list(GROUPED_BY)
    rest: list[str] = []
    # Short names before dotted paths that say the same.
    for name in sorted(names, key=lambda name: (name.count("."), name)):
        if _count(runs, lines) < _count(runs, [*lines, name]) <= MOST_GROUPS:
            lines.append(name)
        elif _count(runs, [*lines, *rest]) < _count(runs, [*lines, *rest, name]):
            rest.append(name)
    # The class of a part says nothing where one of its numbers tells the runs apart.
    needed = _without_what_follows(runs, lines, GROUPED_BY)
    return tuple(needed), tuple(_without_what_follows(runs, [*needed, *rest], needed)[len(needed) :])


def _count(runs: Sequence[Parameters], names: Sequence[str]) -> int:
    return len(set(settings(runs, names)))


def _without_what_follows(runs: Sequence[Parameters], names: Sequence[str], kept: Sequence[str]) -> list[str]:
    """`names` without those, `kept` aside, that divide the runs no further than the others do."""
    left = list(names)
    for name in names:
        others = [other for other in left if other != name]
        if name not in kept and _count(runs, others) == _count(runs, left):
            left = others
    return left


def settings(runs: Iterable[Parameters], names: Sequence[str]) -> list[tuple[str, ...]]:
    """For each run the values of the parameters `names`; `null`, as MLflow's page has it, where it has none."""
    return [tuple(run.get(name, "null") for name in names) for run in runs]


def representatives(runs: Sequence[Parameters], grouped_by: Sequence[str], last: Iterable[int] = ()) -> list[int]:
    """The positions of at most `MOST_RUNS` runs that stand for all of them; all, where there are no more.

    Every setting (all parameters but the seeds) gets equally many, those of its lowest seeds. Where there are more
    settings than runs can be shown, every line of the charts (the values of `grouped_by`) gets equally many settings,
    spread over all that it has. The positions in `last` are taken when a setting has no others.
    """
    if len(runs) <= MOST_RUNS:
        return list(range(len(runs)))
    names = sorted({name for run in runs for name in run} - set(SEEDS))
    postponed = set(last)

    def order(position: int) -> tuple[bool, float, int]:
        return position in postponed, _number(runs[position].get("seed", "")), position

    by_setting = _divided(sorted(range(len(runs)), key=order), settings(runs, names))
    most = _equal_share([len(group) for group in by_setting])
    if most:
        return sorted(position for group in by_setting for position in group[:most])
    firsts = sorted(group[0] for group in by_setting)
    by_line = _divided(firsts, settings(runs, grouped_by))
    most = max(1, _equal_share([len(group) for group in by_line]))
    chosen = [group[number] for group in by_line for number in _spread(len(group), most)]
    return sorted(chosen[:MOST_RUNS])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _divided(positions: Iterable[int], kinds: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """The positions, in their order, by the kind that each is of."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position in positions:
        groups.setdefault(kinds[position], []).append(position)
    return [groups[kind] for kind in sorted(groups)]


def _equal_share(sizes: Sequence[int]) -> int:
    """How many each of several groups can give so that `MOST_RUNS` suffice; a small group gives all it has."""
    share = 0
    while share < max(sizes) and sum(min(size, share + 1) for size in sizes) <= MOST_RUNS:
        share += 1
    return share


def _spread(size: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..size−1, evenly spaced from the first on."""
    few = min(size, most)
    return [number * size // few for number in range(few)]


def value(metrics: Iterable[str], runs: Sequence[Parameters], grouped_by: Sequence[str], *, filtered: bool) -> str:
    """The value of the tag `TAG`: see `state`. Equal arguments give equal values."""
    made = state(metrics, runs, grouped_by, filtered=filtered)
    packed = zlib.compress(json.dumps(made, separators=(",", ":")).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def state(
    metrics: Iterable[str],
    runs: Sequence[Parameters],
    grouped_by: Sequence[str] = GROUPED_BY,
    *,
    filtered: bool = False,
) -> dict[str, Any]:
    """What MLflow's page remembers of itself, as it writes it.

    `metrics` are those that some run of the experiment has; `runs` the parameters of its runs. Each combination of
    values of the parameters `grouped_by` is one line in a chart, and one row, folded, in the list of runs. A `filtered`
    page shows the runs with the tag `REPRESENTATIVE`. The filter stands here and not in the link: MLflow's page leaves
    a shared view aside when its link has a filter of its own.
    """
    folded = [zip(grouped_by, group, strict=True) for group in sorted(set(settings(runs, grouped_by)))]
    columns = list(dict.fromkeys([*(f"params.`{name}`" for name in grouped_by), *COLUMNS]))
    left = sorted(name for name in set(metrics) if not name.startswith("system/"))
    charts: list[dict[str, Any]] = []
    sections = []
    for title, wanted in {**_sections(left), REST: left}.items():
        shown = [name for name in wanted if name in left]
        left = [name for name in left if name not in shown]
        if shown:
            sections.append(_section(title, folded=title == REST))
            charts += [_chart(name, title) for name in shown]
    return {
        "searchFilter": FILTER if filtered else "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": {"attributes.`Run Name`": 260, **{name: 60 + 7 * len(name.split("`")[1]) for name in columns}},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": name} for name in grouped_by],
        },
        "groupsExpanded": {",".join(f"param.{name}.{one}" for name, one in group): False for group in folded},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _sections(metrics: Sequence[str]) -> dict[str, list[str]]:
    """`SECTIONS` with the states that these runs have: the output state `h` (of every layer), and the others."""
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


def _section(title: str, *, folded: bool) -> dict[str, Any]:
    return {
        "uuid": _identity(title),
        "name": title,
        "display": not folded,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
        "cardHeight": 360,
    }


def _chart(metric: str, title: str) -> dict[str, Any]:
    common = {
        "uuid": _identity(f"{title}: {metric}"),
        "runsCountToCompare": 10,
        "metricSectionId": _identity(title),
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
    }
    if metric.startswith("summary/"):
        return {**common, "type": "BAR"}
    return {
        **common,
        "type": "LINE",
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _identity(text: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"rnnstudy:{text}").hex
