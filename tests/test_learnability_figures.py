"""The figure of the learnability window: medians of sides, and nothing where most runs have no value."""

import math

import numpy as np
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.errors import RequestError

CELLS = {"LSTM, forget bias 1": "LSTM", "RNN": "Elman"}


def planted() -> pd.DataFrame:
    rows = []
    for side, shift in zip(CELLS, (0.0, 10.0), strict=True):
        for seed in range(3):
            for lag in (2, 4):
                for measure, value in (("learned", seed / 10), ("samples", shift + seed), ("envelope", -lag - shift)):
                    # Two of three runs of the RNN have no N at lag 4.
                    gone = (side, measure, lag) == ("RNN", "samples", 4) and seed > 0
                    given = {"key": f"{side[0]}{seed}", "side": side, "measure": measure, "lag": lag}
                    rows.append({**given, "value": math.nan if gone else value})
    return pd.DataFrame(rows)


def test_lines_are_medians_of_the_runs_of_a_side():
    picture = figures.learnability_window(planted(), CELLS)
    assert picture.keys == ("L0", "L1", "L2", "R0", "R1", "R2")
    assert len(picture.figure.axes) == 3
    data = picture.data.set_index(["measure", "side", "lag"])
    assert data.loc[("learned", "RNN", 4), ["median", "low", "high"]].tolist() == pytest.approx([0.1, 0, 0.2])
    assert data.loc[("samples", "RNN", 2), "median"] == 11
    assert ("samples", "RNN", 4) not in data.index
    drawn = {line.get_ydata()[0] for line in picture.figure.axes[2].lines}
    assert drawn == {-2.0, -12.0}
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == list(CELLS)
    assert "range of the runs" in picture.caption
    np.testing.assert_array_equal(picture.data["side"].unique(), list(CELLS))


def test_nothing_to_draw_is_said_in_one_line():
    with pytest.raises(RequestError, match="nothing to draw"):
        figures.learnability_window(planted().assign(side="another"), CELLS)
