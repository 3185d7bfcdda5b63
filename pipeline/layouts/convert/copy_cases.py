"""Cases copied one by one into another layout, and what that layout has no place for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import DataError, Problem, problem_list
from pipeline.base.files import safe_join
from pipeline.base.terminal import progress
from pipeline.dataset.loaded_cases import Channel
from pipeline.dataset.manifest import Manifest, ManifestCase
from pipeline.layouts.channel_modality import modality_of
from pipeline.layouts.formats.dataset_json import distinct

PARTIAL = ".partial"
"""Filled first, in the folder itself: an empty one may be a mounted one, which no other can be renamed to."""


@dataclass(frozen=True)
class ConvertResult:
    """What was written: the folder and its cases. notes: what the layout could not hold or had changed; problems: who
    is left out."""

    folder: Path
    cases: int
    notes: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def message(self) -> str:
        """What was written, for the terminal."""
        notes = [f"note: {note}" for note in self.notes]
        faults = [problem_list("the data", self.problems)] if self.problems else []
        return "\n".join([*notes, *faults, f"wrote {self.cases} cases to {self.folder}"])


@dataclass(frozen=True)
class CopyTask:
    """What is written where: `out` is the folder in the end, `work` the one in it that is filled first."""

    manifest: Manifest
    root: Path
    resample: bool
    out: Path

    @property
    def work(self) -> Path:
        return self.out / PARTIAL


def copy_cases(
    task: CopyTask,
    title: str,
    write: Callable[[ManifestCase], None],
    targets: Callable[[ManifestCase], Sequence[Path]],
) -> tuple[list[ManifestCase], list[Problem]]:
    """The cases that were written, and why the others were not: nothing of these is left. DataError where none was."""
    written, problems = [], list[Problem]()
    with progress(title, len(task.manifest.cases)) as bar:
        for case in task.manifest.cases:
            try:
                if case.split == "training" and case.label is None:
                    raise DataError(
                        "has no label, though it is for training; give its label, or set its split to testing"
                    )
                write(case)
                written.append(case)
            except (DataError, MemoryError) as error:
                for target in targets(case):
                    target.unlink(missing_ok=True)
                problems.append(Problem(case.id, f"{str(error) or 'there is not enough memory for it'}; left out"))
            bar.advance()
    if not task.manifest.cases:
        raise DataError(f"{task.manifest.name}: the manifest has no case to write")
    if not written:
        raise DataError(problem_list(f"{task.manifest.name}, of which no case can be written,", problems))
    return written, problems


def manifest_image_paths(case: ManifestCase, root: Path) -> list[Path]:
    return [safe_join(root, image) for image in case.images]


def channel_names(channels: Sequence[Channel]) -> list[str]:
    """Names from which a reader gets the modality back."""
    return distinct([c.name if modality_of(c.name) == c.modality else c.modality for c in channels])
