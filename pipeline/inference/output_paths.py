"""File names of segmentations and of the maps beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.inference.segmentation_jobs import Job
from pipeline.io.image_file_names import case_id, image_ending, stem

MAPS = ("uncertainty", "disagreement", "probabilities")
"""What may lie beside a segmentation, where it was asked for."""

_KEPT = (".mha", ".nrrd")


def prediction_name(images: Sequence[Path]) -> str:
    """The input's file name without a channel suffix; .mha and .nrrd stay, everything else becomes .nii.gz."""
    ending = image_ending(images[0])
    return case_id(images[0]) + (ending if ending in _KEPT else ".nii.gz")


def output_names(images: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Case to the name of its segmentation: its file's, or its id with the same ending where that is the file's whole
    name (`case_0000` among cases that are counted so), or where files share a name.

    The id too where its channels' files are named each in its own way (CASE/T1.nii.gz, CASE/T2.nii.gz).

    Raises a DataError that names the cases that would still be written to one file.
    """
    names = {
        case: f"{case}.nii.gz" if paths[0].is_dir() else prediction_name(paths) for case, paths in images.items()
    }  # a folder is a DICOM series, and its name may be a patient's
    for case, paths in images.items():
        if len({case_id(path, len(paths)) for path in paths}) > 1 or stem(paths[0]) == case:
            names[case] = f"{case}{image_ending(Path(names[case]))}"
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    names = {case: f"{case}{image_ending(Path(name))}" if name in shared else name for case, name in names.items()}
    problems = []
    for name in sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        cases = [case for case, own in names.items() if own == name]
        files = ", ".join(str(images[case][0]) for case in cases)
        problems.append(Problem(name, f"would be written for each of {files}; rename one or predict them apart"))
    if problems:
        raise DataError(problem_list("the list of inputs", problems))
    return names


def map_path(segmentation: Path, what: str) -> Path:
    """Where a map of a case lies: in a folder of that name beside its segmentation, so that folders hold one kind."""
    return segmentation.parent / what / f"{stem(segmentation)}.nii.gz"


def remove_earlier_outputs(job: Job) -> None:
    """What an earlier scan of this name left, so that it is not taken for this one's where this one fails."""
    for path in (job.output, *(map_path(job.output, what) for what in MAPS)):
        if path not in job.images:
            path.unlink(missing_ok=True)
