"""Reports: notebooks that turn results into pages and kept figures; MLflow's own pages, arranged.

What comes in: `reports/<name>.py`, a notebook that begins with `Notebook(name)`, and the results it asks for.
What goes out: .ipynb, .html and figures with the numbers and runs behind them.
Begin with `build.py`; `notebook.py` is what a notebook uses, `mlflow_pages/` what `rnnstudy ui` shows.
"""

from rnnstudy.report.notebook import NOT_RUN, Notebook, in_words, power_of_ten

__all__ = ["NOT_RUN", "Notebook", "in_words", "power_of_ten"]
