"""Stage `package`: one folder that `segpipe predict`, a container and a service need, and nothing else."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import DataError
from pipeline.base.files import read_json, write_json, write_text
from pipeline.base.machine import Runtime
from pipeline.base.portable_yaml import portable_yaml
from pipeline.base.stage import CONFIG
from pipeline.config.package import PackageConfig
from pipeline.dataset.loaded_cases import read_cases
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.packaging.export_models import write_exports
from pipeline.packaging.label_files import write_labels
from pipeline.packaging.label_metadata import make_labels
from pipeline.packaging.licences_sbom import write_notices
from pipeline.packaging.model_card import CardFacts, CardText, model_card
from pipeline.packaging.model_package import load_package
from pipeline.packaging.monai_bundle.write_bundle import write_bundle_or_explain
from pipeline.packaging.package_seal import write_seal
from pipeline.packaging.package_zip import write_zip
from pipeline.preprocessing.plan import read_plan, write_plan
from pipeline.stages.stage_configs import PackageStageConfig

log = logging.getLogger(__name__)


def run(config: PackageStageConfig, inputs: Mapping[str, Path], out: Path, runtime: Runtime) -> None:  # noqa: ARG001, no device is used
    """Writes the package into `out`: weights of every trained fold, plan, labels, figures, card, hashes.

    Raises DataError where the configuration names structures that the data set does not have, SegpipeError where an
    export does not give the network's labels.
    """

    settings = config.package
    cases, plan = read_cases(inputs["load"]), read_plan(inputs["plan"])
    train, summary = read_json(inputs["train"] / "train.json"), read_json(inputs["evaluate"] / "summary.json")
    _check_structures(settings, plan.structures)
    name = settings.name or cases.dataset
    labels = make_labels(plan.structures, settings.labels)

    weights = _copy_weights(inputs["train"], train["folds"], out)
    written = [out / weight for weight in weights]
    exports = write_exports(settings.exports, plan, config.inference, cases, inputs["load"], written)
    write_plan(out, plan)
    write_labels(out, labels)
    postprocess = read_json(inputs["infer"] / "postprocess.json")
    inference = PredictorConfig.model_validate({**_settings(config.inference), "postprocess": postprocess["applied"]})
    write_json(out / "inference.json", _settings(inference))
    shutil.copyfile(inputs["load"] / "fingerprint.json", out / "fingerprint.json")
    write_json(out / "metrics" / "summary.json", _shipped(summary))
    write_text(out / CONFIG, portable_yaml((out / CONFIG).read_text(encoding="utf-8")))
    text = CardText(
        name=name,
        version=settings.version,
        description=settings.description,
        intended_use=settings.intended_use,
        authors=settings.authors,
        licence=settings.licence,
        references=settings.references,
    )
    facts = CardFacts(summary, train, postprocess, exports)
    write_text(out / "MODEL_CARD.md", model_card(text, plan, cases, labels, inference, facts))
    if settings.bundle:
        write_bundle_or_explain(settings, out, plan, inference, written, text, summary, cases.licence)
    write_notices(out, weights_licence=settings.licence, data_licence=cases.licence)
    write_seal(out, name, settings.version, weights, settings.output_slug)
    package = load_package(out)
    if settings.zip:
        write_zip(out, package.seal.files, out / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}-{settings.version}.zip")
    log.info("package   %s %s: %d network(s), %s", name, settings.version, len(weights), _size(out))


def _check_structures(settings: PackageConfig, structures: Mapping[str, Any]) -> None:
    unknown = sorted(set(settings.labels) - set(structures))
    if unknown:
        raise DataError(f"package.labels names {', '.join(unknown)}; the data set has {', '.join(structures)}")


def _copy_weights(train: Path, folds: list[int | str], out: Path) -> list[str]:
    """Copies each fold's last weights (their moving average where training keeps one) and returns their paths."""
    (out / "weights").mkdir(exist_ok=True)
    names = [f"weights/fold_{fold}.safetensors" for fold in folds]
    for fold, name in zip(folds, names, strict=True):
        shutil.copyfile(train / f"fold_{fold}" / "last.safetensors", out / name)
    return names


def _shipped(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The scores without the cases that have none: their names and reasons are of the machine that trained."""
    shipped = {key: value for key, value in summary.items() if key != "not_scored"}
    return shipped | {"n_not_scored": len(summary.get("not_scored", ()))}


def _settings(inference: PredictorConfig) -> dict[str, Any]:
    """The settings that a result depends on; what runs it and how much memory may be used is each machine's matter."""
    names = set(PredictorConfig.model_fields) - {"memory_gib", "backend"}
    return inference.model_dump(mode="json", include=names)


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 2**20:.1f} MiB"
