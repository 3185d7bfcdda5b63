"""MLflow's own client reads back what was sent to a real store of MLflow's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError
from pipeline.training.loggers.mlflow_logger import MlflowLogger
from pipeline.training.loggers.train_logger import MetricFiles

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'segpipe[mlflow]'")


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlruns"


@pytest.fixture
def fold(tmp_path) -> Path:
    folder = tmp_path / "hips" / "train.partial" / "fold_0"
    folder.mkdir(parents=True)
    return folder


def _row(step: int, loss: float) -> tuple[dict[str, float], dict[str, float]]:
    return {"step": step, "loss": loss}, {"step": step, "seconds": 1.0}


def test_rows_are_read_back_and_a_resumed_fold_goes_on_in_its_run(store, fold):
    for step, loss in ((1, 0.5), (2, 0.25)):
        records = MetricFiles(fold, ["organ"], step - 1, tensorboard=False, mlflow=str(store))
        records.add(*_row(step, loss))
        records.close()
    client = mlflow.MlflowClient(str(store))
    experiment = client.get_experiment_by_name("hips")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "fold_0" and run.info.status == "FINISHED"
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]


def test_a_run_that_is_deleted_meanwhile_is_said_once_and_training_goes_on(store, fold, caplog):
    tracker = MlflowLogger(str(store), fold)
    mlflow.MlflowClient(str(store)).delete_run(tracker.run)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            tracker.add({"loss": 0.5}, step)
        tracker.close()
    assert [record.getMessage().count("training goes on") for record in caplog.records] == [1]


def test_a_server_that_is_not_there_is_refused_before_training(fold, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"train\.mlflow: http://127\.0\.0\.1:9 cannot be written to"):
        MlflowLogger("http://127.0.0.1:9", fold)
