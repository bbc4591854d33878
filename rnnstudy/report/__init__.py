"""Reports: notebooks that turn results into pages and figure files; ready-made views in MLflow's own pages.

What comes in: `reports/<name>.py`, a notebook that begins with `Notebook(name)`, and the results it uses.
What goes out: .ipynb, .html and figures, each with its numbers and the keys of its runs.
Begin with `build.py`; `notebook.py` is what a notebook uses, `mlflow_pages/` is what `rnnstudy ui` shows.
"""

from rnnstudy.report.notebook import NOT_RUN, Notebook, power_of_ten, value_at
from rnnstudy.report.study import ReportError

__all__ = ["NOT_RUN", "Notebook", "ReportError", "power_of_ten", "value_at"]
