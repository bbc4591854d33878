"""A run's state and the description of its data, in MLflow's terms."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


def data_input(described: Mapping[str, Any]) -> "DatasetInput":
    """MLflow's description of a `documents.data_set`; no sequence is drawn.

    The schema has the shapes of what a batch holds and of what the network answers: (sequence, time, features), or
    (sequence, time, 1) of whole numbers where the inputs are symbols, and (sequence, time, outputs).
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.types import Schema, TensorSpec

    number, steps = np.dtype("float32"), described["steps"]
    # Descriptions written before tasks said so have no "symbols".
    read = (np.dtype("int32"), 1) if described.get("symbols") else (number, described["features"])
    schema = Schema(
        [
            TensorSpec(read[0], (-1, steps, read[1]), "inputs"),
            TensorSpec(number, (-1, steps, described["outputs"]), "outputs"),
        ]
    )
    source = CodeDatasetSource(
        {
            "mlflow.source.type": "CODE",
            "mlflow.source.name": described["generator"],
            "task": json.dumps(described["task"]),
            "seed": str(described["seed"]),
        }
    )
    data = MetaDataset(source, name=described["name"], digest=described["digest"], schema=schema)
    return DatasetInput(Dataset(**data.to_dict()), [InputTag("mlflow.data.context", "training")])


def mlflow_status(state: str) -> str:
    """MLflow's word for the state of a run that has ended."""
    return {"finished": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
