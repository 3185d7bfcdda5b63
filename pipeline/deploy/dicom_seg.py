"""A segmentation as DICOM-SEG, beside the series that it was made from.

Which voxel lies where is taken from the slices' own positions and directions, never from the name of a plane. Before
anything is written, the object is read back as a viewer would, and every segment must lie where its mask does.

The object carries the patient's identity from the series, as DICOM requires: it belongs where the series belongs.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.base.errors import DataError, missing_extra
from pipeline.base.files import atomic_write
from pipeline.config.package import CodedConcept
from pipeline.deploy.check_dicom_seg import check_places
from pipeline.deploy.group_scan_files import Scan
from pipeline.inference.segmentation_jobs import CaseResult
from pipeline.io.dicom.dicom_series import open_series
from pipeline.io.dicom.slice_order import Series
from pipeline.io.image_file_names import image_ending
from pipeline.io.read_label import read_label
from pipeline.io.volume import Volume
from pipeline.packaging.label_metadata import Label

if TYPE_CHECKING:
    from pydicom import Dataset

    from pipeline.packaging.model_package import ModelPackage

log = logging.getLogger(__name__)

NO_DICOM_SEG = "no DICOM-SEG"
_SERIES_NUMBER = 100
_LONG_STRING = 64
"""DICOM's most characters of a name."""
_UTF_8 = "ISO_IR 192"
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
)  # fmt: skip
"""What an object must have but may leave empty (type 2); anonymised series often lack it altogether."""


def write_dicom_segs(
    scans: Sequence[Scan], output: Path, results: Sequence[CaseResult], package: ModelPackage
) -> list[CaseResult]:
    """Writes CASE.dcm beside each segmentation of a DICOM series; returns the results with why there is none.

    output: the folder or file of the segmentations, as `segpipe predict` takes it; results: what became of each scan. A
    CASE.dcm of an earlier call goes. Raises ConfigError where highdicom is not installed.
    """
    require_highdicom()
    done = {result.id for result in results if result.status == "done"}
    series = [scan for scan in scans if scan.images[0].is_dir()]
    if not any(scan.id in done for scan in series):
        log.info("no DICOM-SEG is written: none of the segmented scans is a DICOM series")
    reasons = dict[str, str]()
    for scan in series:
        segmentation = output / f"{scan.id}.nii.gz" if output.is_dir() else output
        target = segmentation.with_name(f"{segmentation.name.removesuffix(image_ending(segmentation))}.dcm")
        try:
            target.unlink(missing_ok=True)
            if scan.id not in done:
                continue
            model = f"{package.name} {package.version}"
            write_dicom_seg(target, read_label(segmentation), scan.images[0], package.labels, model)
        except DataError as error:
            reasons[scan.id] = f"{NO_DICOM_SEG}: {error}"
        except OSError as error:  # a full disk
            reasons[scan.id] = f"{NO_DICOM_SEG}: it could not be written ({error.strerror})"
        if scan.id in reasons:
            log.warning("%s  %s", scan.id, reasons[scan.id])
    return [_with_remark(result, reasons.get(result.id, "")) for result in results]


def without_dicom_seg(results: Sequence[CaseResult]) -> int:
    """How many of the results lack a DICOM-SEG that was asked for."""
    return sum(NO_DICOM_SEG in result.message for result in results)


def _with_remark(result: CaseResult, remark: str) -> CaseResult:
    return replace(result, message="; ".join(text for text in (result.message, remark) if text))


def require_highdicom() -> None:
    """ConfigError where DICOM-SEG cannot be written here; to be asked before hours of work."""
    if find_spec("highdicom") is None:
        raise missing_extra("highdicom", "dicom", "writing DICOM-SEG")


def frames_of(array: NDArray, labels: Sequence[Label]) -> NDArray[np.integer]:
    """(frames, rows, columns) of segment numbers; with a last axis of segments where structures share label values."""
    values = [value for label in labels for value in label.values]
    rows_first = array.transpose(2, 1, 0)
    if len(set(values)) < len(values):
        return np.stack([np.isin(rows_first, label.values) for label in labels], axis=-1).astype(np.uint8)
    frames = np.zeros(rows_first.shape, np.uint16)
    for number, label in enumerate(labels, 1):
        frames[np.isin(rows_first, label.values)] = number
    return frames


def write_dicom_seg(
    path: Path,
    segmentation: Volume,
    folder: Path,
    labels: Sequence[Label],
    model: str,
    make_frames: Callable[[NDArray, Sequence[Label]], NDArray[np.integer]] = frames_of,
) -> None:
    """Writes `segmentation`, made from the DICOM series in `folder`, as a DICOM-SEG file.

    model: its name and version, for the algorithm's identification. Structures that were not found are left out. Raises
    ConfigError where highdicom is not installed, DataError where the series is not the segmentation's, nothing was
    found, the series lacks what DICOM asks for, or a segment would not lie where its mask does. make_frames: turns the
    label map into the object's frames.
    """
    series = open_series(folder)
    if series.grid.shape != segmentation.grid.shape or series.grid.distance_mm(segmentation.grid) > 0.01:
        raise DataError(f"{path}: the segmentation does not lie on the grid of the DICOM series that is given with it")
    present = [label for label in labels if np.isin(segmentation.array, label.values).any()]
    if not present:
        raise DataError(f"{path}: no structure was found, and DICOM-SEG cannot say so; the NIfTI file does")
    dataset = _dataset(make_frames(segmentation.array, present), series, present, model)
    check_places(dataset, segmentation, present)
    atomic_write(path, lambda temporary: dataset.save_as(temporary))


def _dataset(frames: NDArray, series: Series, labels: Sequence[Label], model: str) -> Dataset:
    try:
        import highdicom
        import pydicom
    except ImportError:
        raise missing_extra("highdicom", "dicom", "writing DICOM-SEG") from None
    sources = [pydicom.dcmread(entry.path, stop_before_pixels=True) for entry in series.slices]
    _complete(sources)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning of a long name quotes it
            return highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=frames,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_description(number, label, model) for number, label in enumerate(labels, 1)],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="segpipe",
                manufacturer_model_name=model[:_LONG_STRING],
                software_versions=__version__,
                device_serial_number="none",
                content_description="Research use only",
                content_label="SEGMENTATION",
                series_description=f"Segmentation by {model}"[:_LONG_STRING],
                specific_character_set=_UTF_8,  # names are decoded when they are read, whatever the series had
            )
    except (AttributeError, TypeError, ValueError, KeyError) as error:  # what highdicom raises for a series it refuses
        said = _without_identity(str(error), sources[0])
        raise DataError(f"the DICOM series lacks what DICOM-SEG needs ({said}); the NIfTI file is complete") from None


def _complete(sources: Sequence[Dataset]) -> None:
    """Fills in what an object made from `sources` must state and anonymisers take away.

    Class and instance are repeated in the file's own header. A study and a series that are not named get identifiers
    that depend on the instances only, so that all objects made from one scan are of one study.
    """
    from pydicom.uid import generate_uid

    for source in sources:
        for keyword in _MAY_BE_EMPTY:
            if keyword not in source:
                setattr(source, keyword, "")
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if not source.get(keyword):
                setattr(source, keyword, source.file_meta.get(f"MediaStorage{keyword}", ""))
    instances = sorted(str(source.SOPInstanceUID) for source in sources)
    for keyword, what in (("StudyInstanceUID", "study"), ("SeriesInstanceUID", "series")):
        if all(instances) and not any(source.get(keyword) for source in sources):
            log.warning("the DICOM series names no %s: DICOM-SEG gets a new one, and may not be filed beside it", what)
            for source in sources:
                setattr(source, keyword, generate_uid(entropy_srcs=[what, *instances]))


def _without_identity(said: str, source: Dataset) -> str:
    """A library's sentence, unless it quotes who or what the series is of."""
    values = (str(source.get(keyword, "")) for keyword in (*_MAY_BE_EMPTY, "StudyInstanceUID", "SeriesInstanceUID"))
    return "an attribute that identifies it is not valid" if any(v and v in said for v in values) else said


def _description(number: int, label: Label, model: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=model[:_LONG_STRING], family=codes.cid7162.ArtificialIntelligence, version=__version__, source="segpipe"
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_concept(label.category),
        segmented_property_type=_concept(label.type),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*label.color),
    )


def _concept(code: CodedConcept) -> Any:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
