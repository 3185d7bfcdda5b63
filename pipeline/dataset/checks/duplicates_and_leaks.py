"""One scan, label map or patient that is counted twice, and splits that would let a model see what it is judged by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pipeline.dataset.checks.check_case import Finding
from pipeline.dataset.checks.faults import ALL_CASES, Fault
from pipeline.dataset.folds import given_folds
from pipeline.dataset.manifest import ManifestCase

_FLAT = {"constant", "empty-label"}


def find_duplicates(findings: Sequence[Finding]) -> Iterator[Fault]:
    """Images with the same voxels in two cases, or twice in one; label maps of two images."""
    flat = {(fault.case, fault.file) for f in findings for fault in f.faults if fault.code in _FLAT}
    images = [(f.case, file, f.content[file]) for f in findings for file in f.case.images if file in f.content]
    copied = set()
    for first, first_file, case, file in _repeated(images, flat):
        copied.add((first.id, case.id))
        if first.id == case.id:
            yield Fault(
                case.id,
                file,
                "warning",
                "same-channel",
                f"it holds the same voxels as {first_file}",
                "give the image of this channel",
            )
        else:
            yield _duplicate(first, first_file, case, file)
    labels = [(f.case, f.case.label, f.content[f.case.label]) for f in findings if f.case.label in f.content]
    for first, first_file, case, file in _repeated(labels, flat):
        if (first.id, case.id) not in copied:
            yield Fault(
                case.id,
                file,
                "warning",
                "same-label",
                f"it is the same label map as {first_file} of {first.id}, whose image is another one",
                "find out to which image it belongs",
            )


def _duplicate(first: ManifestCase, first_file: str, case: ManifestCase, file: str) -> Fault:
    """Fatal where a model could be judged by what it learned from: one of the two trains, and they may be parted."""
    found = f"it holds the same voxels as {first_file} of {first.id}"
    same_subject, cure = _subject(first) == _subject(case), "take one of the two out of the manifest"
    if first.split != case.split:
        found += f" ({first.split}): a model would be tested on what it was trained on"
        return Fault(case.id, file, "fatal", "duplicate", found, cure)
    if case.split == "training" and not same_subject:
        found += " (another subject): in another fold, a model would be validated on what it was trained on"
        cure += ", or give both the subject that it is of"
        return Fault(case.id, file, "fatal", "duplicate", found, cure)
    found += ", the same subject: the scan counts twice" if same_subject else ": the scan counts twice"
    return Fault(case.id, file, "warning", "duplicate", found, cure)


def _repeated(
    files: Iterable[tuple[ManifestCase, str, str]], flat: set[tuple[str, str]]
) -> Iterator[tuple[ManifestCase, str, ManifestCase, str]]:
    """(first case, its file, case, file) for every file whose content was there before."""
    seen: dict[str, tuple[ManifestCase, str]] = {}
    for case, file, content in files:
        if (case.id, file) in flat:
            continue
        if content in seen:
            yield (*seen[content], case, file)
        else:
            seen[content] = case, file


def find_split_leaks(cases: Sequence[ManifestCase]) -> Iterator[Fault]:
    """One subject in training and testing, or validated in two folds."""
    by_subject: dict[str, list[ManifestCase]] = defaultdict(list)
    for case in cases:
        by_subject[_subject(case)].append(case)
    for subject, own in by_subject.items():
        tested = [case.id for case in own if case.split == "testing"]
        trained = [case for case in own if case.split == "training"]
        for case in trained if tested else ():
            yield Fault(
                case.id,
                "",
                "fatal",
                "leak",
                f"its subject {subject} is in testing too ({', '.join(tested)}), so the test would not be one",
                "put all cases of a subject into one split",
            )
        folds = {case.fold for case in trained}
        if len(folds) > 1:
            shown = ", ".join(
                f"{case.id} in {'no fold' if case.fold is None else f'fold {case.fold}'}" for case in trained
            )
            for case in trained:
                yield Fault(
                    case.id,
                    "",
                    "fatal",
                    "leak",
                    f"its subject {subject} is validated in more than one fold ({shown})",
                    "give all cases of a subject the same fold",
                )


def find_fold_gaps(cases: Sequence[ManifestCase]) -> Iterator[Fault]:
    """Folds of the manifest that are not counted from 0 on: `make_folds` closes the gaps."""
    given = given_folds(case for case in cases if case.split == "training")
    if given != list(range(len(given))):
        there, counted = (", ".join(map(str, numbers)) for numbers in (given, range(len(given))))
        yield Fault(
            ALL_CASES,
            "",
            "fixable",
            "fold-gap",
            f"the manifest's folds are {there}; they are taken as {counted}",
            "count folds from 0 without gaps in the manifest, or correct the fold that is wrong",
        )


def _subject(case: ManifestCase) -> str:
    return case.subject or case.id
