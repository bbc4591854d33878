"""The documents of a run and the description of its data, in MLflow's terms."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient


def upload_documents(
    client: "MlflowClient", identity: str, documents: Mapping[str, str], data_set: Mapping[str, Any]
) -> None:
    """Write `documents` (file name to text) as artifacts of a run, and its data as an input. Twice changes nothing."""
    for name, text in documents.items():
        client.log_text(identity, text, name)
    if data_set:
        client.log_inputs(identity, [data_input(data_set)])


def data_input(described: Mapping[str, Any]) -> "DatasetInput":
    """MLflow's description of a `documents.data_set`; no sequence is drawn.

    The schema has the shapes of a network's inputs and outputs: (sequence, time, features) and
    (sequence, time, outputs).
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.types import Schema, TensorSpec

    number, steps = np.dtype("float32"), described["steps"]
    schema = Schema(
        [
            TensorSpec(number, (-1, steps, described["features"]), "inputs"),
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
