"""What training asks for, held against the plan before anything is computed. Without torch: `run` asks it early."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec

from pipeline.base.errors import ConfigError, DataError, missing_extra
from pipeline.config.train import TrainConfig
from pipeline.models.losses.loss_config import resolve_class_weights, uses_sigmoid
from pipeline.models.networks.network_config import network_config
from pipeline.preprocessing.plan import Plan
from pipeline.training.find_pretrained_weights import find_pretrained_weights
from pipeline.training.select_folds import fold_numbers


def check_against_plan(config: TrainConfig, plan: Plan, folds: int | None = None) -> None:
    """Refuses what does not suit the plan's structures and levels, or is not there. folds: how many there will be.

    Raises a ConfigError, or a DataError where weights to begin from are missing.
    """
    if folds is not None and config.folds != "full":
        fold_numbers(config.folds, folds)
    uses_sigmoid(config.loss, plan.overlapping)
    resolve_class_weights(config.loss, plan.out_channels, plan.class_weights)
    require_a_weight_per_level(config, plan)
    structure_weights(config.oversample_weights or {}, plan.structures)
    if config.pretrained is not None:
        find_pretrained_weights(config.pretrained)
    if config.mlflow is not None and find_spec("mlflow") is None:
        raise missing_extra("mlflow", "mlflow", "train.mlflow")


def require_a_weight_per_level(config: TrainConfig, plan: Plan) -> None:
    """A ConfigError where train.deep_supervision_weights are more or fewer than the network's outputs."""
    outputs = 1 + (getattr(network_config(plan.network), "deep_supervision", None) or 0)
    weights = config.deep_supervision_weights
    if weights is not None and len(weights) != outputs:
        raise ConfigError(
            f"train.deep_supervision_weights has {len(weights)} weights, but the network has {outputs} outputs; give "
            "one for each, finest first, or leave them out"
        )


def structure_weights(given: Mapping[str, float], structures: Collection[str]) -> list[float]:
    """How often each structure is chosen, in their order; a ConfigError where one is named that there is not."""
    unknown = sorted(set(given) - set(structures))
    if unknown:
        raise ConfigError(
            f"train.oversample_weights names {', '.join(unknown)}; the plan's structures are {', '.join(structures)}"
        )
    return [given.get(name, 1.0) for name in structures]


def require_channels_for_all_labels(foreground: Mapping[str, Collection[int]], structures: Collection[str]) -> None:
    """Refuse a patch store with more structures than the plan's network has channels for (DataError).

    Args:
        foreground: Case id to the numbers of the structures that it holds, from 1.
        structures: The plan's structures.
    """
    for case, numbers in foreground.items():
        if numbers and max(numbers) > len(structures):
            raise DataError(
                f"case {case} holds structure {max(numbers)}, but the network has channels for "
                f"{len(structures)}: {', '.join(structures)}; run plan and sample again"
            )
