"""Summary of what init found and wrote, as text for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import Problem, problem_list
from pipeline.base.terminal import format_table
from pipeline.dataset.manifest import Manifest


@dataclass(frozen=True)
class InitResult:
    """What `init` wrote, and what it has to say: `notes` (assumptions) and `problems` (to be looked at)."""

    layout: str
    config: Path
    manifest: Path
    dataset: Manifest
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def message(self) -> str:
        """All of it for the terminal: tables of channels and structures, assumptions, problems, the next command."""
        training = [case for case in self.dataset.cases if case.split == "training"]
        count = f"{len(training)} training and {len(self.dataset.cases) - len(training)} testing cases"
        labels = [(name, _values_text(values)) for name, values in self.dataset.labels.items()]
        parts = [
            f"{self.layout} layout: {count}, {len(self.dataset.channels)} channel(s)",
            format_table(("channel", "modality"), [(c.name, c.modality) for c in self.dataset.channels]),
            format_table(("structure", "value"), labels)
            if labels
            else "no structures: nothing can be trained from this data",
            *(f"note: {note}" for note in self.notes),
        ]
        if self.problems:
            parts.append(problem_list("the data", self.problems))
        parts += [
            f"wrote {self.manifest}",
            f"wrote {self.config}",
            f"next: segpipe check {shlex.quote(str(self.config))}",
        ]
        return "\n".join(parts)


def _values_text(values: int | Sequence[int]) -> str:
    return str(values) if isinstance(values, int) else "+".join(map(str, values))
