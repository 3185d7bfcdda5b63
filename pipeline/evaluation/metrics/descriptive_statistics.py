"""Descriptive statistics of one metric: mean, spread, bootstrap interval, quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics.bootstrap_intervals import QUANTILES, Bootstrap, interval


def describe_values(values: NDArray[np.float64], bootstrap: Bootstrap) -> dict[str, object]:
    """n, mean, sample standard deviation (n − 1), 95 % interval of the mean, quantiles; NaN is left out.

    What is not defined (everything for n = 0, spread for n = 1) is None. Quantiles carry no interval: a bootstrap
    interval of a median can be far off.
    """
    defined = values[~np.isnan(values)]
    n = len(defined)
    low, high = interval(bootstrap.means(values), bootstrap.subjects_with(values))
    quantiles = np.quantile(defined, list(QUANTILES.values())) if n else [None] * len(QUANTILES)
    return {
        "mean": float(defined.mean()) if n else None,
        "std": float(defined.std(ddof=1)) if n > 1 else None,
        "ci95": [low, high],
        "n": n,
        **{name: None if value is None else float(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
    }
