"""What a metric is where the reference, the prediction or both are empty: one rule, and those of three others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

EmptyPolicy = Literal["segpipe", "reloaded", "nnunet", "monai"]
Emptiness = Literal["both_empty", "ref_empty", "pred_empty"]

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm")


def which_side_empty(n_pred: int, n_ref: int) -> Emptiness | None:
    """Which side is empty; None where both have voxels."""
    if n_ref and n_pred:
        return None
    return "both_empty" if not n_ref and not n_pred else "ref_empty" if not n_ref else "pred_empty"


def empty_values(kind: Emptiness, policy: EmptyPolicy, diagonal_mm: float) -> dict[str, float | None]:
    """The value of every metric that an empty side decides; None is undefined and left out of means.

    `diagonal_mm` is the image's diagonal, the largest distance that there could be.
    """
    values: dict[str, float | None] = dict(_RULES["segpipe"][kind])
    values |= dict.fromkeys(DISTANCES, None if kind == "both_empty" else diagonal_mm)
    if policy != "segpipe":
        values.update(dict.fromkeys(DISTANCES))
        values.update(_RULES[policy][kind])
    return values


_RULES: Mapping[str, Mapping[Emptiness, Mapping[str, float | None]]] = {
    "segpipe": {
        "both_empty": dict.fromkeys(
            ("dice", "iou", "precision", "recall", "nsd", "volume_difference_percent", "lesion_f1")
        ),
        "ref_empty": {
            "dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": None, "nsd": 0.0,
            "volume_difference_percent": None, "lesion_f1": 0.0,
        },
        "pred_empty": {
            "dice": 0.0, "iou": 0.0, "precision": None, "recall": 0.0, "nsd": 0.0,
            "volume_difference_percent": -100.0, "lesion_f1": 0.0,
        },
    },
    "reloaded": {
        "both_empty": {
            "dice": 1.0, "volume_difference_percent": 0.0, "lesion_f1": 1.0, **dict.fromkeys(DISTANCES, 0.0),
        },
        "ref_empty": {"volume_difference_percent": 100.0},
        "pred_empty": {"precision": 0.0},
    },
    "nnunet": {"both_empty": {}, "ref_empty": {}, "pred_empty": {}},
    "monai": {"both_empty": {}, "ref_empty": {"dice": None, "iou": None}, "pred_empty": {}},
}  # fmt: skip
"""Each policy but ours is written as what differs from ours; distances are undefined in it unless they stand here."""
