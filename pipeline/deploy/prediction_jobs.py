"""Jobs of a prediction: which file each scan is written to, and what must not be overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.deploy.group_scan_files import Scan
from pipeline.inference.output_paths import output_names
from pipeline.inference.segmentation_jobs import CaseResult, Job
from pipeline.io.image_file_names import image_ending


def prediction_jobs(
    scans: Sequence[Scan], is_file: bool, output: Path, texts: bool
) -> tuple[list[Job], list[CaseResult]]:
    """What to segment, and the scans that cannot be. is_file: one file was given, so that `output` may be one too."""
    sound = [scan for scan in scans if not scan.fault]
    faults = [CaseResult(scan.id, "failed", scan.fault) for scan in scans if scan.fault]
    to_file = bool(image_ending(output)) and not output.is_dir()
    if is_file and output.suffix and not to_file and not output.exists():
        raise ConfigError(f"--output {output}: {output.suffix!r} is no kind of image; end it in .nii.gz, .mha or .nrrd")
    if to_file and len(scans) > 1:
        raise ConfigError(f"--output {output} is one file, but there are {len(scans)} scans; give a folder")
    names = output_names({scan.id: scan.images for scan in sound})
    jobs = [Job(scan.id, scan.images, output if to_file else output / names[scan.id], texts=texts) for scan in sound]
    for job in jobs:
        for image in job.images:
            if job.output.exists() and image.exists() and job.output.samefile(image):
                raise ConfigError(f"--output would overwrite the scan {image}; give another folder")
    return jobs, faults
