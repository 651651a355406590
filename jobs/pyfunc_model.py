"""The MLflow model: `model.json` behind MLflow's predict, so that any MLflow client can score windows without Spark.

Logged as code (MLflow's models from code), with the package `tidewatch` beside it. A row is a window: `detector`, its
raw `signals`, and its baseline's `center` and `scale` in transformed units (empty lists: no baseline).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel
from tidewatch import scoring


class TidewatchModel(PythonModel):  # type: ignore[misc]
    """One use case's model of plain arrays."""

    def load_context(self, context: Any) -> None:
        self._model = scoring.load(Path(context.artifacts["model"]).read_text())

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        out = pd.DataFrame(index=model_input.index, columns=["score", "baseline", "share", "expected"], dtype=object)
        for name, at in model_input.reset_index(drop=True).groupby("detector").indices.items():
            d = len(self._model.detectors[name].signals)

            def matrix(column: str, rows: Any = at, width: int = d) -> np.ndarray:
                return np.array([x if len(x) == width else [np.nan] * width for x in model_input[column].iloc[rows]], dtype=np.float64)

            got = scoring.score(self._model, name, matrix("signals"), matrix("center"), matrix("scale"))
            for column, values in (("score", got.score.tolist()), ("baseline", got.baseline), ("share", got.share.tolist()), ("expected", got.expected.tolist())):
                out.iloc[at, out.columns.get_loc(column)] = pd.Series(values, dtype=object).to_numpy()
        return out.astype({"score": float, "baseline": str})


mlflow.models.set_model(TidewatchModel())
