"""A ready-made view of an experiment in MLflow's own page: which charts and columns it opens with.

MLflow keeps a view that was shared by a link in a tag of the experiment. The form of that tag is not documented, so all
that is known of it stands in this file, and is used with the MLflow it was seen in: `MLFLOW`. With another one a link
opens the same page without the view.
"""

import base64
import json
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

MLFLOW = "3.17"
"""The minor version of MLflow whose views these are."""

KEY = "rnnstudy"
TAG = f"mlflow.sharedViewState.{KEY}"

GROUPED_BY = ("cell", "length")

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


def value(metrics: Iterable[str], groups: Iterable[Sequence[str]]) -> str:
    """The value of the tag `TAG`: see `state`. Equal arguments give equal values."""
    packed = zlib.compress(json.dumps(state(metrics, groups), separators=(",", ":")).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def state(metrics: Iterable[str], groups: Iterable[Sequence[str]]) -> dict[str, Any]:
    """What MLflow's page remembers of itself, as it writes it.

    `metrics` are those that some run of the experiment has; `groups` the values of the parameters `GROUPED_BY` that
    occur. Each group is one line in a chart, and one row, folded, in the list of runs.
    """
    folded = [zip(GROUPED_BY, group, strict=True) for group in sorted(set(map(tuple, groups)))]
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
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "columnOrder": ["attributes.`Run Name`", *COLUMNS],
        "columnWidths": {"attributes.`Run Name`": 260, **{name: 60 + 7 * len(name.split("`")[1]) for name in COLUMNS}},
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
            "groupByKeys": [{"mode": "param", "groupByData": name} for name in GROUPED_BY],
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
        "cardHeight": 440,
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
