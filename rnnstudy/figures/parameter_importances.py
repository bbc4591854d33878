"""How much each parameter matters in a search."""

import pandas as pd

from rnnstudy.figures.picture import Picture
from rnnstudy.figures.search_panels import CANDIDATE, keys_of_trials, study_panels
from rnnstudy.figures.style import house_style
from rnnstudy.spec import RequestError


def parameter_importances(importances: pd.DataFrame, trials: pd.DataFrame) -> Picture:
    """Importance of each parameter for the value of a candidate (PED-ANOVA), one group of bars per study.

    Raises `RequestError` when no study has importances.
    """
    if importances.empty:
        raise RequestError("no study has enough complete trials for importances; continue the search")
    parameters = list(dict.fromkeys(importances["parameter"]))
    with house_style():
        figure, axes = study_panels(importances, height=2.2)
        for name, axis in axes.items():
            own = importances[importances["study"] == name].set_index("parameter").reindex(parameters)
            axis.barh(range(len(parameters)), own["importance"].fillna(0.0), color=CANDIDATE, height=0.6)
            axis.set_yticks(range(len(parameters)), [parameter.replace("_", " ") for parameter in parameters])
            axis.set(xlim=(0, 1), xlabel="share of importance")
    caption = (
        "How much each parameter matters for the value of a study's candidates (PED-ANOVA); the shares of a study add "
        "to 1."
    )
    return Picture(figure, importances.reset_index(drop=True), keys_of_trials(trials), caption)
