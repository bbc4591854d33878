"""Results: finished runs, read back as tidy data frames.

    results = load(experiment="quickstart")
    results.runs                                     # one row for each run, indexed by key
    results.readings("through_time/h")               # key, step, quantile, time, value

What comes in: the store, or a folder of committed files. What goes out: `Results`. Begin with `results.py`.
"""

from rnnstudy.results.loading import artifact_file, complete_keys, find_key, from_files, load, runs_table, stored_run
from rnnstudy.results.results import Results, from_records

__all__ = [
    "Results",
    "artifact_file",
    "complete_keys",
    "find_key",
    "from_files",
    "from_records",
    "load",
    "runs_table",
    "stored_run",
]
