"""The curves of a fold on an MLflow server. Training never ends because of it: what cannot be sent is said once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from pipeline.base.errors import ConfigError, missing_extra

log = logging.getLogger(__name__)


class MlflowLogger:
    """One MLflow run per fold, in the experiment named after the run folder; a resumed fold goes on in its run.

    uri: of a server (http://...), or a database (sqlite:///FILE) where the whole of MLflow is installed. Raises a
    ConfigError where nothing answers there: before training begins.
    """

    def __init__(self, uri: str, folder: Path, resumed_step: int = 0) -> None:
        if find_spec("mlflow") is None:
            raise missing_extra("mlflow", "mlflow", "train.mlflow")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.uri, self.failure, self.silent = uri, MlflowException, False
        name = folder.parent.parent.name
        try:
            self.client = MlflowClient(tracking_uri=uri)
            experiment = self.client.get_experiment_by_name(name)
            self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(name)
            self.run = self._begun(folder.name) if resumed_step else None
            self.run = self.run or self.client.create_run(self.experiment, run_name=folder.name).info.run_id
        except MlflowException as error:
            raise ConfigError(
                f"train.mlflow: {uri} cannot be written to ({_first_sentence(error)}); give the address of a server "
                "that runs, such as http://localhost:5000, or leave train.mlflow out"
            ) from error

    def _begun(self, run_name: str) -> str | None:
        """The run that an interrupted training of this fold has written to."""
        found = self.client.search_runs([self.experiment], f"tags.`mlflow.runName` = '{run_name}'", max_results=1)
        return found[0].info.run_id if found else None

    def add(self, values: Mapping[str, int | float], step: int) -> None:
        """One row of values."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        metrics = [Metric(name, float(value), now, step) for name, value in values.items() if name != "step"]
        self._send(lambda: self.client.log_batch(self.run, metrics=metrics))

    def close(self, status: str = "FINISHED") -> None:
        """Marks the run as ended: FINISHED, KILLED (interrupted, it may go on) or FAILED."""
        self._send(lambda: self.client.set_terminated(self.run, status))

    def _send(self, call: Callable[[], object]) -> None:
        if self.silent:
            return
        try:
            call()
        except self.failure as error:
            self.silent = True
            log.warning(
                "train.mlflow: %s no longer takes what is sent (%s); training goes on, metrics.csv has all of it",
                self.uri,
                _first_sentence(error),
            )


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
