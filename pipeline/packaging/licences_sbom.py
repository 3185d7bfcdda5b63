"""What a package says about licences and about the software that made it: LICENSE, third-party notices and an SBOM."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.base.files import write_json, write_text


def write_notices(folder: Path, weights_licence: str, data_licence: str) -> None:
    """Writes `LICENSE`, `licences/THIRD_PARTY.md` and `sbom.cdx.json` (CycloneDX 1.6)."""
    found = installed_closure("segpipe")
    write_text(folder / "LICENSE", _licence_text(weights_licence, data_licence))
    write_text(folder / "licences" / "THIRD_PARTY.md", _third_party(found))
    write_json(folder / "sbom.cdx.json", sbom(found))


def installed_closure(root: str) -> list[Distribution]:
    """The installed distributions that `root` requires, directly or not, without optional extras; by name."""
    found: dict[str, Distribution] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        key = _normal(name)
        if key in found:
            continue
        try:
            found[key] = distribution(name)
        except PackageNotFoundError:  # a requirement for another platform or Python
            continue
        waiting += [
            match.group()
            for requirement in found[key].requires or []
            if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement))
        ]
    return [found[key] for key in sorted(found)]


def sbom(found: list[Distribution]) -> dict[str, Any]:
    """A CycloneDX bill of materials; without serial number and date, so that equal software gives equal bytes."""
    components = []
    for item in found:
        name, version = _normal(item.metadata["Name"]), item.version
        entry: dict[str, Any] = {"type": "library", "name": name, "version": version}
        entry["purl"] = entry["bom-ref"] = f"pkg:pypi/{name}@{version}"
        entry["licenses"] = [{"license": {"name": _licence_of(item)}}]
        components.append(entry)
    tool = {"type": "application", "name": "segpipe", "version": __version__}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": tool},
        "components": components,
    }


def _licence_text(weights_licence: str, data_licence: str) -> str:
    return (
        f"Model weights: {weights_licence or 'no licence stated by the authors; ask them before use'}\n"
        f"Training data: {data_licence or 'not stated'}\n"
        "Software that made and runs the model: Apache-2.0 (segpipe); its dependencies are in licences/THIRD_PARTY.md\n"
        "\nResearch use only. Not a medical device.\n"
    )


def _third_party(found: list[Distribution]) -> str:
    rows = [f"| {item.metadata['Name']} | {item.version} | {_licence_of(item)} |" for item in found]
    return (
        "\n".join(["# Third-party software", "", "| package | version | licence |", "| --- | --- | --- |", *rows])
        + "\n"
    )


def _licence_of(item: Distribution) -> str:
    """The licence in one line: the SPDX expression, a short License field, or the classifier."""
    expression, field = (item.metadata.json.get(key, "") for key in ("license_expression", "license"))
    classifiers = [
        c.rpartition("::")[2].strip() for c in item.metadata.get_all("Classifier") or [] if "License ::" in c
    ]
    short = field if isinstance(field, str) and "\n" not in field and len(field) < 80 else ""
    return str(expression or short or ", ".join(classifiers) or "not stated")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
