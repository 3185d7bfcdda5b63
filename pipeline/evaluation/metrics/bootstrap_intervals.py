"""Bootstrap over subjects: resampled means, their intervals, moments and quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of subjects, drawn with replacement: how often each subject is in each resample (resamples, subjects).

    All metrics of one comparison share one Bootstrap, so that intervals of differences and of means over structures
    belong together.
    """

    subject_of_case: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def draw(cls, subjects: Sequence[str], resamples: int, seed: int) -> Bootstrap:
        """Resamples for cases with these subjects; the same arguments give the same resamples."""
        names, subject_of_case = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        count = len(names)
        drawn = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
        offsets = np.arange(resamples)[:, None] * count
        weights = np.bincount((drawn + offsets).reshape(-1), minlength=resamples * count).reshape(resamples, count)
        return cls(subject_of_case, weights.astype(float))

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of a metric in every resample; `values` has one number a case, NaN is left out."""
        known = ~np.isnan(values)
        subjects = self.weights.shape[1]
        sums = np.bincount(self.subject_of_case, weights=np.where(known, values, 0.0), minlength=subjects)
        counts = np.bincount(self.subject_of_case, weights=known.astype(float), minlength=subjects)
        drawn = self.weights @ counts
        return np.divide(self.weights @ sums, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    def subjects_with(self, values: NDArray[np.float64]) -> int:
        """How many subjects have a defined value."""
        return len(np.unique(self.subject_of_case[~np.isnan(values)]))


def interval(resampled: NDArray[np.float64], subjects: int, level: float = 0.95) -> tuple[float | None, float | None]:
    """The expanded percentile interval of a mean over `subjects` subjects, from its resampled values.

    Plain percentiles are too narrow for few subjects: resampling underestimates the variance by (n − 1)/n and takes
    the normal for the t distribution. The percentiles are those at Φ(±t·√(n/(n − 1))) instead (Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015, section 5). (None, None) with fewer than two subjects.
    """
    defined = resampled[~np.isnan(resampled)]
    if subjects < 2 or not len(defined):
        return None, None
    reach = special.stdtrit(subjects - 1, 0.5 + level / 2) * np.sqrt(subjects / (subjects - 1))
    low, high = np.quantile(defined, [special.ndtr(-reach), special.ndtr(reach)])
    return float(low), float(high)
