"""The package as a MONAI bundle too: `configs/metadata.json`, `configs/inference.json`, `models/model.pt`.

A bundle holds one network. What it cannot express (ensembles, mirroring, regions, postprocessing) is said in its
`docs/README.md`; `segpipe predict` does all of it. Nothing of the bundle is ever read back by segpipe.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.base.errors import ConfigError
from pipeline.base.files import write_json, write_text
from pipeline.config.package import PackageConfig
from pipeline.inference.predictor_config import PredictorConfig
from pipeline.models.checkpoint import load_weights
from pipeline.models.networks.build_network import build_network
from pipeline.models.networks.network_config import UNetConfig, network_config
from pipeline.packaging.model_card import NOT_A_DEVICE, CardText
from pipeline.packaging.monai_bundle.bundle_config import NoBundleForm, inference_config, network_arguments
from pipeline.packaging.monai_bundle.bundle_metadata import RELEASED_SCHEMA, SCHEMA, bundle_metadata, schema_text
from pipeline.preprocessing.plan import Plan

log = logging.getLogger(__name__)


def write_bundle(
    folder: Path,
    plan: Plan,
    settings: PredictorConfig,
    weights: Sequence[Path],
    text: CardText,
    summary: Mapping[str, Any],
    data_licence: str = "",
) -> None:
    """Writes the bundle's files into a package's folder.

    summary: evaluate's summary.json. Raises NoBundleForm where the plan has no form as a bundle.
    """
    config = network_config(plan.network)
    if not isinstance(config, UNetConfig) or plan.overlapping or any(len(v) != 1 for v in plan.structures.values()):
        raise NoBundleForm("only a unet with structures of one label value each has a form as MONAI bundle")
    inference = inference_config(plan, config, settings)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(_dynunet_state(plan, config, weights[0]), folder / "models" / "model.pt")
    write_json(folder / "configs" / "metadata.json", bundle_metadata(plan, text, summary, data_licence))
    write_text(folder / "configs" / SCHEMA, schema_text())
    write_json(folder / "configs" / "inference.json", inference)
    write_text(folder / "docs" / "README.md", _readme(plan, settings, len(weights), text))


def _dynunet_state(plan: Plan, config: UNetConfig, weights: Path) -> dict[str, torch.Tensor]:
    """Our weights under all the names that MONAI's DynUNet gives them; the coarse heads of training stay behind."""
    from monai.networks.nets import DynUNet

    try:
        network = DynUNet(**network_arguments(plan, config)).eval()
    except ValueError as error:
        raise NoBundleForm(f"MONAI's DynUNet does not take these settings ({error})") from None
    ours = {n: t for n, t in load_weights(weights).items() if not n.startswith("deep_supervision_heads")}
    unknown = network.load_state_dict(ours, strict=False).unexpected_keys
    reference = build_network(plan.network, len(plan.channels), plan.out_channels).eval()
    reference.load_state_dict(load_weights(weights))
    example = torch.linspace(-1, 1, len(plan.channels) * int(torch.tensor(plan.patch_size).prod()))
    example = example.reshape(1, len(plan.channels), *plan.patch_size)
    with torch.no_grad():
        same = not unknown and torch.allclose(network(example), reference(example), rtol=1e-3, atol=1e-4)
    if not same:
        raise NoBundleForm("MONAI's DynUNet does not compute what this network does: it has no form as MONAI bundle")
    return network.state_dict()


def _readme(plan: Plan, settings: PredictorConfig, networks: int, text: CardText) -> str:
    files = "--config_file configs/inference.json --meta_file configs/metadata.json"
    check = f"python -m monai.bundle verify_metadata --meta_file configs/metadata.json --filepath configs/{SCHEMA}"
    return f"""\
# {text.name} {text.version}

{NOT_A_DEVICE}

In this folder, with `pip install monai nibabel pytorch-ignite fire jsonschema`:

```
python -m monai.bundle run {files} --bundle_root . --dataset_dir SCANS --output_dir OUT
python -m monai.bundle verify_net_in_out network_def {files}
{check}
```

SCANS is a folder of `.nii.gz` files{_channels(plan)}.

`configs/inference.json` holds expressions, which MONAI's bundle runner evaluates; segpipe reads neither it nor
`models/model.pt`. Where no file may hold any, package with `package.bundle: false`.

`configs/{SCHEMA}` is segpipe's own schema, written from the MONAI Bundle Specification and stricter than it: with it
the check needs no network. It is not the schema that MONAI releases. That one is named in `configs/metadata.json`
({RELEASED_SCHEMA}); give `--filepath` a file that does not exist, and MONAI downloads it and checks against it.

A bundle cannot express, and `segpipe predict` does:

{chr(10).join(f"- {what}" for what in _left_out(plan, settings, networks))}
"""


def _channels(plan: Plan) -> str:
    if len(plan.channels) == 1:
        return ""
    return f", 4D with the channels {', '.join(channel.name for channel in plan.channels)} in this order"


def _left_out(plan: Plan, settings: PredictorConfig, networks: int) -> list[str]:
    return [
        *([f"the ensemble: this is the first of {networks} networks"] if networks > 1 else []),
        *(["mirroring at prediction"] if settings.mirror else []),
        *(["windows that are spread evenly"] if settings.starts == "even" else []),
        *(
            ["logits that are brought back linearly: here by a cubic spline"]
            if plan.image_interpolation == "cubic"
            else []
        ),
        *(["postprocessing of label maps"] if settings.postprocess != "none" else []),
        *(
            [f"{plan.precision} arithmetic: here fp32"]
            if settings.precision != "fp32" and plan.precision != "fp32"
            else []
        ),
        "the domain guard, the checks of files and memory, other kinds of file than NIfTI",
    ]


def write_bundle_or_explain(settings: PackageConfig, *package: Any) -> None:
    """The bundle's files; where it cannot be, that is said, or refused if it was asked for."""
    try:
        write_bundle(*package)
    except NoBundleForm as reason:
        if settings.bundle is True:
            raise ConfigError(f"package.bundle: {reason}; set package.bundle: auto") from None
        log.info("package   is no MONAI bundle: %s", reason)
