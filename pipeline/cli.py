"""The `segpipe` command: arguments in, exit code out. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from pipeline import __version__, commands
from pipeline.base.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_USAGE,
    SegpipeError,
)

# What a user's disk and permissions say; any other failing of the system's calls is a fault of ours.
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EISDIR}

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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is a message, never a traceback."""
    arguments = _parser().parse_args(argv)
    _log_to_terminal(sys.stderr if getattr(arguments, "json", False) else sys.stdout)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return arguments.command(arguments)
    except SegpipeError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except MemoryError:
        cure = "end other programs, or use a larger machine (in training a smaller plan.patch_size needs less)"
        print(f"\nnot enough memory; {cure}", file=sys.stderr)
        return EXIT_OUR_FAULT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OURS:
            print(f"\n{error.filename or 'writing'}: {error.strerror}; nothing half-written is left", file=sys.stderr)
            return EXIT_USAGE
        traceback.print_exc()
        print(
            f"\nthis is a fault of segpipe {__version__}, please report it with the lines above",
            file=sys.stderr,
        )
        return EXIT_OUR_FAULT


def _interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001, a signal handler's arguments
    raise KeyboardInterrupt


def _log_to_terminal(stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package_log = logging.getLogger("pipeline")
    package_log.handlers[:] = [handler]
    package_log.setLevel(logging.INFO)
    package_log.propagate = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segpipe",
        description="From 3D scans with label maps to a validated, deployable segmentation model.",
    )
    parser.add_argument("--version", action="version", version=f"segpipe {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = subparsers.add_parser("run", help="run all stages that are not up to date")
    _config_arguments(run)
    which = run.add_mutually_exclusive_group()
    which.add_argument(
        "--from",
        dest="first",
        choices=STAGE_HELP,
        metavar="STAGE",
        help="start at this stage; earlier ones must be finished",
    )
    which.add_argument("--only", choices=STAGE_HELP, metavar="STAGE", help="run this stage alone")
    run.set_defaults(command=commands.run_stages)
    for name, text in STAGE_HELP.items():
        stage = subparsers.add_parser(name, help=text)
        _config_arguments(stage)
        stage.set_defaults(command=commands.run_stages, first=None, only=name)

    _data_commands(subparsers)
    _model_commands(subparsers)
    _result_commands(subparsers)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML configuration")
    _set_argument(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/NAME)")
    parser.add_argument("--force", action="store_true", help="do again what is up to date")


def _set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key, for instance train.budget=10m",
    )


def _data_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = subparsers.add_parser("check", help="name every fault of a configuration and its data, without computing")
    check.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    _set_argument(check)
    check.add_argument("--json", action="store_true", help="print the faults as JSON")
    check.add_argument("--html", type=Path, metavar="FILE", help="write the faults as a page")
    check.set_defaults(command=commands.check_data)

    show = subparsers.add_parser("show-config", help="print the resolved configuration, or its JSON Schema")
    show.add_argument("config", type=Path, nargs="?", metavar="CONFIG")
    _set_argument(show)
    show.add_argument("--schema", action="store_true", help="print the JSON Schema that editors complete keys with")
    show.set_defaults(command=commands.show_config)

    init = subparsers.add_parser("init", help="write a configuration and manifest for a folder of data")
    init.add_argument("folder", type=Path, metavar="FOLDER")
    init.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG")
    init.add_argument("--format", default="auto", choices=("auto", "msd", "nnunet", "csv", "folders", "bids", "dicom"))
    init.add_argument("--labels", metavar="NAME=VALUE,...", help="label names and values")
    patterns = "by parts of their paths, or by * and ?"
    init.add_argument("--label-files", metavar="PATTERN,...", help=f"label maps of plain folders, {patterns}")
    init.add_argument("--image-files", metavar="PATTERN,...", help=f"images of plain folders, {patterns}")
    init.set_defaults(command=commands.init_data)

    convert = subparsers.add_parser("convert", help="write a data set as nnU-Net raw or MSD")
    convert.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    convert.add_argument("--to", required=True, choices=("nnunet", "msd"))
    convert.add_argument("--output", type=Path, required=True, metavar="DIR")
    convert.set_defaults(command=commands.convert_data)


def _model_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = subparsers.add_parser("predict", help="segment scans with a model package")
    predict.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    predict.add_argument("--input", type=Path, required=True, metavar="FILE|DIR|MANIFEST")
    predict.add_argument("--output", type=Path, required=True, metavar="FILE|DIR")
    predict.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    predict.add_argument("--backend", choices=("auto", "torch", "onnx", "openvino"), help="what runs the networks")
    predict.add_argument(
        "--uncertainty", action="store_true", help="write maps of the entropy too, and score the cases"
    )
    predict.add_argument("--probabilities", action="store_true", help="write the probability of every structure too")
    predict.add_argument("--dicom-seg", action="store_true", help="write CASE.dcm (DICOM-SEG) too for DICOM series")
    predict.add_argument("--strict", action="store_true", help="refuse scans unlike those the model was trained on")
    predict.set_defaults(command=commands.predict_scans)

    image = subparsers.add_parser("image", help="build a container image with a model inside")
    image.add_argument("package", type=Path, metavar="PACKAGE")
    image.add_argument("-t", "--tag", required=True)
    image.add_argument("--base", default="cpu", choices=("cpu", "cuda", "slim"))
    image.add_argument("--engine", choices=("docker", "podman", "buildah"), help="default: the first that is installed")
    image.set_defaults(command=commands.build_image)

    serve = subparsers.add_parser("serve", help="offer a model package over HTTP")
    serve.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto")
    serve.set_defaults(command=commands.serve_model)


def _result_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = subparsers.add_parser("score", help="score a folder of predictions against references")
    score.add_argument("--pred", type=Path, required=True, metavar="DIR")
    score.add_argument("--ref", type=Path, required=True, metavar="DIR")
    score.add_argument("--labels", required=True, metavar="NAME=VALUE,...")
    score.add_argument("--output", type=Path, required=True, metavar="DIR")
    score.add_argument("--nsd-tolerance-mm", default="1", metavar="MM|NAME=MM,...", help="of the surface Dice")
    score.add_argument("--surface", default="surfel", choices=("surfel", "voxel"), help="how surfaces are measured")
    policies = ("segpipe", "reloaded", "nnunet", "monai")
    score.add_argument("--empty-policy", default="segpipe", choices=policies, help="whose rule for absent structures")
    score.add_argument("--ignore", type=int, metavar="VALUE", help="label value of the references that does not count")
    score.set_defaults(command=commands.score_folder)

    compare = subparsers.add_parser("compare", help="compare runs side by side, with paired statistics")
    compare.add_argument("sources", type=Path, nargs="+", metavar="RUN_OR_SUMMARY")
    compare.add_argument("--output", type=Path, required=True, metavar="DIR")
    compare.set_defaults(command=commands.compare_runs)

    view = subparsers.add_parser("view", help="go through a run's cases in the browser, offline")
    view.add_argument("run", type=Path, metavar="RUN")
    view.add_argument("--port", type=int, default=0, help="default: a free one")
    view.add_argument("--no-browser", action="store_true", help="print the address only")
    view.set_defaults(command=commands.view_run)

    demo = subparsers.add_parser("demo", help="run the whole pipeline on phantoms that it makes, in about two minutes")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    _set_argument(demo)
    demo.set_defaults(command=commands.run_demo)
