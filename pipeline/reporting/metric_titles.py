"""Titles and digits of metrics, as tables and figures show them."""

from __future__ import annotations

# Metric to its column title and the digits it is shown with, in the order of the table.
SHOWN = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "nsd": ("NSD", 3),
    "hd95_mm": ("HD95 mm", 2),
    "assd_mm": ("ASSD mm", 2),
    "volume_difference_ml": ("volume difference ml", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "lesion_f1": ("lesion F1", 3),
}
