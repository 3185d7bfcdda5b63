"""Commands: one module each, with `add_arguments(parser)` and `run(arguments)`; it is imported when it is called."""

from __future__ import annotations

STAGE_HELP = {
    "load": "read every scan and label, name all faults, write cases and fingerprint",
    "plan": "decide spacing, normalisation, patch, network, steps, each with its reason",
    "sample": "conform to the plan, write the patch store and folds",
    "train": "train the folds",
    "infer": "segment the validation and testing cases",
    "evaluate": "score predictions per structure",
    "report": "write the offline report",
    "package": "write the model folder that `segpipe predict` takes",
}
"""Name of a stage, which is a command of its own too, to its line of help."""

COMMAND_HELP = {
    "run": "run all stages that are not up to date",
    **STAGE_HELP,
    "check": "name every fault of a configuration and its data, without computing",
    "show-config": "print the resolved configuration, or its JSON Schema",
    "init": "write a configuration and manifest for a folder of data",
    "convert": "write a data set as nnU-Net raw or MSD",
    "predict": "segment scans with a model package",
    "image": "build a container image with a model inside",
    "serve": "offer a model package over HTTP",
    "score": "score a folder of predictions against references",
    "compare": "compare runs side by side, with paired statistics",
    "view": "go through a run's cases in the browser, offline",
    "demo": "run the whole pipeline on phantoms that it makes, in about two minutes",
}
"""Name of a command to its line of help, in the order in which `segpipe --help` lists them."""
