"""The report on people's own models: its data, the strips of words, and that it can be built."""

import math
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from rnnstudy import figures
from rnnstudy.report.build import build_reports
from rnnstudy.store.project import Project

ROOT = Path(__file__).parents[1]


def test_the_data_are_what_their_description_says_and_have_their_licence() -> None:
    reviews = pd.read_csv(ROOT / "data" / "movie_reviews.csv")
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert list(reviews.columns) == ["text", "rating", "label"]
    clear = reviews[reviews["rating"].abs() >= 0.5]
    counts = [len(reviews), len(clear), int((clear["rating"] < 0).sum()), int((clear["rating"] > 0).sum())]
    assert [int(number.replace(",", "")) for number in re.findall(r"\d+,\d+", text)] == counts
    assert reviews["rating"].between(-4, 4).all()
    assert "MIT" in (ROOT / "data" / "movie_reviews.LICENSE.txt").read_text(encoding="utf-8")


def test_strips_show_each_word_below_the_largest_of_its_strip() -> None:
    words = [["so", "good"], ["not", "so", "good", "!"]]
    norms = {"before": [[-2.0, -3.0], [-5.0, -4.0, -7.0, -6.5]], "after": [[-1.0, -math.inf], [0.0, -1.0, -2.0, -3.0]]}
    rows = []
    for number, sentence in enumerate(words):
        for strip, of_sentences in norms.items():
            columns = {"position": range(1, len(sentence) + 1), "word": sentence, "log10_norm": of_sentences[number]}
            rows.append(pd.DataFrame({"sentence": f"sentence {number}", "strip": strip, **columns}))
    values = pd.concat(rows)
    picture = figures.word_strips(values)
    below = picture.data[picture.data["strip"] == "before"].groupby("sentence")["decades_below_largest"].agg(list)
    assert below.to_dict() == {"sentence 0": [0, -1], "sentence 1": [-1, 0, -3, -2.5]}
    panels = picture.figure.axes[:2]
    assert [panel.get_title(loc="left") for panel in panels] == ["sentence 0", "sentence 1"]
    assert [text.get_text() for text in panels[1].get_xticklabels()] == words[1]
    assert [text.get_text() for text in panels[1].get_yticklabels()] == ["before", "after"]
    drawn = np.ma.getdata(panels[0].collections[0].get_array())
    assert drawn[0].tolist() == [0, -1]
    assert panels[0].collections[0].get_clim() == (-3, 0)
    assert np.ma.getmaskarray(panels[0].collections[0].get_array()).tolist() == [[False, False], [False, True]]


@pytest.mark.slow
def test_the_report_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for folder in ("reports", "experiments"):
        (tmp_path / folder).mkdir()
    shutil.copytree(ROOT / "data", tmp_path / "data")
    shutil.copy(ROOT / "reports" / "watch_your_own_model.py", tmp_path / "reports")
    (tmp_path / "mlruns").mkdir()
    project = Project(tmp_path)
    build_reports(["watch_your_own_model"], project)
    notebook = nbformat.read(project.built_reports / "watch_your_own_model.ipynb", as_version=4)
    text = str([cell.get("outputs") for cell in notebook.cells])
    [lstm] = re.findall(r"the LSTM is right in (\d+) %", text)
    [transformer, guess] = re.findall(r"the transformer in (\d+) % \(always the same answer: (\d+) %\)", text)[0]
    assert min(int(lstm), int(transformer)) > int(guess) + 10
    words = pd.read_csv(project.built_reports / "figures" / "watch_your_own_model" / "gradient_by_word.csv")
    assert set(words["strip"]) == {
        f"{name}, {when}" for name in ("LSTM", "transformer") for when in ("before", "after")
    }
    assert words["log10_norm"].notna().all()
