# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
"""The gradient at each word of a few sentences, as strips of colour over the words."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rnnstudy.figures.picture import Picture
from rnnstudy.figures.style import ABSENT, HEAT, house_style

MOST_DECADES = 3.0
"""The widest range of colours: what is smaller by more decades has the colour of its lower end."""

MOST_WIDTH = 11.0
"""Of the words of a figure, in inches."""


def word_strips(values: pd.DataFrame) -> Picture:
    """A panel for each sentence: its words across, and a strip for each network and moment.

    The colour is log10 (‖dL/dx_t‖ / max_s ‖dL/dx_s‖), x_t being the vector of word t: decades below the word of the
    sentence at which the gradient of the same strip is largest.

    Args:
        values: a row for each word of each strip: `sentence` (the title of its panel), `strip` (its name), `position`
            (from 1), `word`, and `log10_norm`, log10 ‖dL/dx_t‖; −inf for an exact zero.
    """
    values = values.copy()
    largest = values.groupby(["sentence", "strip"], sort=False)["log10_norm"].transform("max")
    values["decades_below_largest"] = values["log10_norm"] - largest
    sentences = list(dict.fromkeys(values["sentence"]))
    strips = list(dict.fromkeys(values["strip"]))
    words = int(values["position"].max())
    shortfall = -values["decades_below_largest"].replace(-np.inf, 0).min()
    decades = float(np.clip(np.ceil(2 * shortfall) / 2, 0.5, MOST_DECADES))
    colours = matplotlib.colormaps[HEAT].with_extremes(bad=ABSENT)
    with house_style():
        # Many words stand closer, and more upright: a wider figure would be shown with smaller letters.
        wide = min(0.72 * words, MOST_WIDTH)
        high = 0.3 * len(strips) + (1.35 if wide == 0.72 * words else 1.6)
        figure = Figure(figsize=(wide + 3.2, high * len(sentences)), layout="constrained")
        panels = figure.subplots(len(sentences), 1, squeeze=False)[:, 0]
        for panel, sentence in zip(panels, sentences, strict=True):
            part = values[values["sentence"] == sentence]
            grid = part.pivot(index="strip", columns="position", values="decades_below_largest").loc[strips]
            shown = np.ma.masked_invalid(grid.to_numpy())
            mesh = panel.pcolormesh(shown, cmap=colours, vmin=-decades, vmax=0, edgecolors="white", linewidth=1)
            first = part[part["strip"] == strips[0]].sort_values("position")
            panel.set(xlim=(0, words), ylim=(len(strips), 0), yticks=np.arange(len(strips)) + 0.5, yticklabels=strips)
            panel.set_xticks(
                np.arange(len(first)) + 0.5,
                first["word"],
                rotation=30 if wide == 0.72 * words else 55,
                ha="right",
                rotation_mode="anchor",
            )
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
            panel.grid(False)
            panel.set_title(sentence, loc="left")
        figure.colorbar(
            mesh, ax=panels, shrink=min(1.0, 2 / len(sentences)), aspect=25, pad=0.01,
            extend="min" if shortfall > decades else "neither",
            label="gradient at the word,\ndecades below the largest (log10)",
        )  # fmt: skip
    caption = (
        "log10 of the norm of the loss's gradient with respect to each word's vector, relative to the word of the same "
        "strip where it is largest; grey: exactly zero. One sentence each, without uncertainty."
    )
    return Picture(figure, values.reset_index(drop=True), (), caption)
