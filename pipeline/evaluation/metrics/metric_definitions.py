"""The definitions that go into `summary.json`: a figure without its definition cannot be compared with another's."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.metrics.score_case import MetricConfig

_ELEMENT = {
    "surfel": "surface elements weighted by area (equal to google-deepmind/surface-distance)",
    "voxel": "edge voxels counted one each (equal to MONAI)",
}
_PERCENTILE = {
    "surfel": "the smallest distance that 95 % of a surface's area stays within",
    "voxel": "the interpolated 95th percentile over edge voxels",
}
_EMPTY = {
    "segpipe": "both empty: undefined; one empty: Dice, IoU, NSD 0, distances the image diagonal in mm",
    "reloaded": "as Metrics Reloaded: both empty: Dice 1, IoU and NSD undefined, distances 0; "
    "one empty: Dice, IoU, NSD 0, distances undefined",
    "nnunet": "as nnU-Net: both empty: undefined; one empty: Dice, IoU, NSD 0, distances undefined",
    "monai": "as MONAI's defaults: reference empty: Dice and IoU undefined; prediction empty: 0; "
    "distances undefined where one is empty",
}


def definitions(settings: MetricConfig, structures: Sequence[str], resamples: int) -> dict[str, object]:
    """One sentence or value for each figure in `summary.json`, and the settings it was made with."""
    return {
        "dice": "2|P∩R| / (|P|+|R|)",
        "iou": "|P∩R| / |P∪R|",
        "precision": "|P∩R| / |P|",
        "recall": "|P∩R| / |R|",
        "hd_mm": "larger of the two directed maximum surface distances",
        "hd95_mm": f"larger of the two directed 95th percentiles; {_PERCENTILE[settings.surface]}",
        "assd_mm": "mean distance over both surfaces together",
        "nsd": "share of both surfaces within the tolerance of the other",
        "nsd_tolerance_mm": {name: settings.tolerance_of(name) for name in structures},
        "surface": _ELEMENT[settings.surface],
        "volume_difference_ml": "predicted minus reference volume",
        "volume_difference_percent": "100 · (predicted − reference) / reference volume",
        "lesion_f1": "2·found / (2·found + false + missed); a reference lesion is found by one predicted voxel, a "
        f"predicted lesion false without one in the reference; {settings.connectivity}-connected components",
        "empty_policy": settings.empty_policy,
        "empty": _EMPTY[settings.empty_policy],
        "mean": "over cases, undefined values left out; top-level mean: over structures, of their means; no background",
        "std": "sample standard deviation (n − 1)",
        "ci95": f"expanded percentile bootstrap of the mean, {resamples} resamples of subjects",
    }
