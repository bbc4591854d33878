"""Results -> pictures: one file for each kind, and what is drawn comes back beside the figure, as a table.

The house style, which every figure keeps:

- **One palette**, Okabe & Ito's, safe for colour-blind readers. A cell has one colour, marker and dash wherever it is
  drawn (`STYLES`, `style`): RNN (Elman) vermilion, LSTM blue, GRU green. Colour never tells anything alone: marker,
  dash or position tells it as well. What is not measured (bounds, chance levels, thresholds) is grey and dashed.
- **Lengths** are shades of the cell's colour, short light and long dark, each with its own dash (`length_line`).
- **Heat maps** use `HEAT`, or `AROUND_ZERO` for a quantity that has a middle; absent values are `ABSENT`, and named.
- **Units** stand on every axis. Gradients are log10 of a Euclidean norm; the axis says so, and is linear in decades.
- **Uncertainty** is always drawn, and named in the legend or the caption: Wilson intervals for shares, bootstrap
  intervals of the median from 10 runs on, and the range of the runs below that (`median_and_band`, `band_words`,
  `wilson`).
- **Size**: `panels` puts at most three or four panels in a row, with type that is readable at half size; one legend
  stands under the whole figure (`legend_below`). Titles are short and in words.
- **The table** behind a figure holds every number in it, in a fixed order (`ordered`): equal runs give equal bytes.

To add a kind of picture, write one file with one public function that takes `Results` and returns a `Picture`; it draws
within `look()`. No function opens a window or needs a display.
"""

from rnnstudy.figures.bifurcation import bifurcation
from rnnstudy.figures.chosen_runs import Results, best_by_validation, ordered, true, updates_to_solve, validation_table
from rnnstudy.figures.clipping import DECADES_SHOWN as CLIPPING_DECADES
from rnnstudy.figures.clipping import clipping
from rnnstudy.figures.cosine_by_window import cosine_by_window
from rnnstudy.figures.gradient_by_lag import gradient_by_lag
from rnnstudy.figures.gradient_heat_map import DECADES_SHOWN, gradient_heat_map, informative_stretches
from rnnstudy.figures.half_life_by_bias import half_life_by_bias, half_life_of_bias
from rnnstudy.figures.learning_curves import learning_curves
from rnnstudy.figures.loss_surface import loss_surface
from rnnstudy.figures.picture import Picture, rendered
from rnnstudy.figures.prediction import prediction, prediction_table
from rnnstudy.figures.searches import optimisation_history, parallel_coordinates, parameter_importances, slices
from rnnstudy.figures.settings import success_by_setting
from rnnstudy.figures.spectra import lyapunov_spectrum, singular_values_by_lag
from rnnstudy.figures.statistics import SEEDS_FOR_INTERVAL, band_words, counted, mcnemar, median_and_band, wilson
from rnnstudy.figures.style import (
    ABSENT,
    AROUND_ZERO,
    BOUND,
    HEAT,
    STYLES,
    Style,
    cell_handle,
    cell_position,
    chance_line,
    edges,
    gradient_label,
    house_style,
    legend_below,
    length_handle,
    length_line,
    panels,
    shade,
    style,
)
from rnnstudy.figures.success import success_by_length
from rnnstudy.figures.time_to_solve import time_to_solve
from rnnstudy.figures.tuned import tuned_comparison
from rnnstudy.figures.vanishing_to_exploding import vanishing_to_exploding
from rnnstudy.figures.wall_by_length import wall_by_length

__all__ = [
    "ABSENT",
    "AROUND_ZERO",
    "BOUND",
    "CLIPPING_DECADES",
    "DECADES_SHOWN",
    "HEAT",
    "SEEDS_FOR_INTERVAL",
    "STYLES",
    "Picture",
    "Results",
    "Style",
    "band_words",
    "best_by_validation",
    "bifurcation",
    "cell_handle",
    "cell_position",
    "chance_line",
    "clipping",
    "cosine_by_window",
    "counted",
    "edges",
    "gradient_by_lag",
    "gradient_heat_map",
    "gradient_label",
    "half_life_by_bias",
    "half_life_of_bias",
    "house_style",
    "informative_stretches",
    "learning_curves",
    "legend_below",
    "length_handle",
    "length_line",
    "loss_surface",
    "lyapunov_spectrum",
    "mcnemar",
    "median_and_band",
    "optimisation_history",
    "ordered",
    "panels",
    "parallel_coordinates",
    "parameter_importances",
    "prediction",
    "prediction_table",
    "rendered",
    "shade",
    "singular_values_by_lag",
    "slices",
    "style",
    "success_by_length",
    "success_by_setting",
    "time_to_solve",
    "true",
    "tuned_comparison",
    "updates_to_solve",
    "validation_table",
    "vanishing_to_exploding",
    "wall_by_length",
    "wilson",
]
