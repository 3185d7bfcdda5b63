"""The `segpipe` command: arguments in, exit code out. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline import __version__
from pipeline.base.errors import (
    EXIT_DATA,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_SOME_CASES,
    ConfigError,
    SegpipeError,
)

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig

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
    _log_to_terminal()
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
        print("\nnot enough memory; a smaller plan.patch_size or plan.batch_size needs less", file=sys.stderr)
        return EXIT_OUR_FAULT
    except Exception:
        traceback.print_exc()
        print(
            f"\nthis is a fault of segpipe {__version__}, please report it with the lines above",
            file=sys.stderr,
        )
        return EXIT_OUR_FAULT


def _interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001, a signal handler's arguments
    raise KeyboardInterrupt


def _log_to_terminal() -> None:
    handler = logging.StreamHandler(sys.stdout)
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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run all stages that are not up to date")
    _config_arguments(run)
    run.add_argument(
        "--from",
        dest="first",
        choices=STAGE_HELP,
        metavar="STAGE",
        help="start at this stage; earlier ones must be finished",
    )
    run.add_argument("--only", choices=STAGE_HELP, metavar="STAGE", help="run this stage alone")
    run.set_defaults(command=_run)
    for name, text in STAGE_HELP.items():
        stage = commands.add_parser(name, help=text)
        _config_arguments(stage)
        stage.set_defaults(command=_run, first=None, only=name)

    _data_commands(commands)
    _model_commands(commands)
    _result_commands(commands)
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


def _data_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser("check", help="name every fault of a configuration and its data, without computing")
    check.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    _set_argument(check)
    check.add_argument("--json", action="store_true", help="print the faults as JSON")
    check.add_argument("--html", type=Path, metavar="FILE", help="write the faults as a page")
    check.set_defaults(command=_check)

    show = commands.add_parser("show-config", help="print the resolved configuration, or its JSON Schema")
    show.add_argument("config", type=Path, nargs="?", metavar="CONFIG")
    _set_argument(show)
    show.add_argument("--schema", action="store_true", help="print the JSON Schema that editors complete keys with")
    show.set_defaults(command=_show_config)

    init = commands.add_parser("init", help="write a configuration and manifest for a folder of data")
    init.add_argument("folder", type=Path, metavar="FOLDER")
    init.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG")
    init.add_argument("--format", default="auto", choices=("auto", "msd", "nnunet", "csv", "folders", "bids", "dicom"))
    init.add_argument("--labels", metavar="NAME=VALUE,...", help="label names and values")
    init.set_defaults(command=_init)

    convert = commands.add_parser("convert", help="write a data set as nnU-Net raw or MSD")
    convert.add_argument("source", type=Path, metavar="CONFIG|MANIFEST")
    convert.add_argument("--to", required=True, choices=("nnunet", "msd"))
    convert.add_argument("--output", type=Path, required=True, metavar="DIR")
    convert.set_defaults(command=_convert)


def _model_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = commands.add_parser("predict", help="segment scans with a model package")
    predict.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    predict.add_argument("--input", type=Path, required=True, metavar="FILE|DIR|MANIFEST")
    predict.add_argument("--output", type=Path, required=True, metavar="FILE|DIR")
    predict.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    predict.add_argument("--strict", action="store_true", help="refuse scans unlike those the model was trained on")
    predict.set_defaults(command=_predict)

    image = commands.add_parser("image", help="build a container image with a model inside")
    image.add_argument("package", type=Path, metavar="PACKAGE")
    image.add_argument("-t", "--tag", required=True)
    image.add_argument("--base", default="cpu", choices=("cpu", "cuda", "slim"))
    image.add_argument("--engine", choices=("docker", "podman", "buildah"), help="default: the first that is installed")
    image.set_defaults(command=_image)

    serve = commands.add_parser("serve", help="offer a model package over HTTP")
    serve.add_argument("--model", type=Path, required=True, metavar="PACKAGE")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto")
    serve.set_defaults(command=_serve)


def _result_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = commands.add_parser("score", help="score a folder of predictions against references")
    score.add_argument("--pred", type=Path, required=True, metavar="DIR")
    score.add_argument("--ref", type=Path, required=True, metavar="DIR")
    score.add_argument("--labels", required=True, metavar="NAME=VALUE,...")
    score.add_argument("--output", type=Path, required=True, metavar="DIR")
    score.set_defaults(command=_score)

    compare = commands.add_parser("compare", help="compare runs side by side, with paired statistics")
    compare.add_argument("sources", type=Path, nargs="+", metavar="RUN_OR_SUMMARY")
    compare.add_argument("--output", type=Path, required=True, metavar="DIR")
    compare.set_defaults(command=_compare)

    view = commands.add_parser("view", help="go through a run's cases in the browser, offline")
    view.add_argument("run", type=Path, metavar="RUN")
    view.add_argument("--port", type=int, default=0, help="default: a free one")
    view.add_argument("--no-browser", action="store_true", help="print the address only")
    view.set_defaults(command=_view)

    demo = commands.add_parser("demo", help="run the whole pipeline on phantoms that it makes, in about two minutes")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    _set_argument(demo)
    demo.set_defaults(command=_demo)


def _run(arguments: argparse.Namespace) -> int:
    config = _load_config(arguments.config, arguments.overrides)
    return _run_config(config, arguments.out, arguments.first, arguments.only, arguments.force)


def _run_config(
    config: PipelineConfig,
    out: Path | None,
    first: str | None = None,
    only: str | None = None,
    force: bool = False,
) -> int:
    from pipeline.base.allocator import keep_freed_memory
    from pipeline.run import run

    keep_freed_memory()
    folder = out if out is not None else Path("runs") / config.name
    code = run(config, folder, first, only, force)
    _say_where(folder, only)
    return code


def _say_where(folder: Path, only: str | None) -> None:
    """After a whole run: the table of Dice, where the report lies and what to do with the package."""
    from pipeline.base.files import read_json
    from pipeline.base.terminal import format_table

    summary = folder / "evaluate" / "summary.json"
    if only in {None, "evaluate"} and summary.is_file():
        content = read_json(summary)
        rows = [
            (name, *_dice_cells(entry["dice"]))
            for name, entry in [*content["structures"].items(), ("mean", content["mean"])]
        ]
        print("\n" + format_table(("structure", "Dice", "95 % interval", "cases"), rows))
    if only is None:
        print(f"\nreport   {folder / 'report' / 'report.html'}")
        print(f"predict  segpipe predict --model {folder / 'package'} --input SCANS --output SEGMENTATIONS")


def _dice_cells(dice: dict) -> tuple[str, str, str]:
    mean, interval = dice.get("mean"), dice.get("ci95")
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval and None not in interval else ""
    return ("undefined" if mean is None else f"{mean:.3f}"), between, str(dice.get("n", ""))


def _load_config(path: Path, overrides: Sequence[str]) -> PipelineConfig:
    from pipeline.config import load_config

    return load_config(path, overrides)


def _show_config(arguments: argparse.Namespace) -> int:
    import json

    from pipeline.config import json_schema, load_config, to_yaml

    if arguments.schema:
        print(json.dumps(json_schema(), indent=2))
    elif arguments.config is None:
        raise ConfigError("show-config needs a CONFIG, or --schema")
    else:
        print(to_yaml(load_config(arguments.config, arguments.overrides)), end="")
    return EXIT_DONE


def _demo(arguments: argparse.Namespace) -> int:
    from pipeline.config import load_config
    from pipeline.data.synthetic import make_phantoms

    phantoms = arguments.out / "phantoms"
    manifest = phantoms / "manifest.json"
    if not manifest.is_file():
        make_phantoms(phantoms)
        print(f"made phantoms in {phantoms}")
    overrides = [f"data.manifest={manifest}", f"data.root={phantoms}", *arguments.overrides]
    return _run_config(load_config(Path(__file__).with_name("demo.yaml"), overrides), arguments.out)


def _init(arguments: argparse.Namespace) -> int:
    from pipeline.layouts import init

    result = init(arguments.folder, arguments.output, format=arguments.format, labels=arguments.labels)
    print(result.message)
    return EXIT_DONE


def _convert(arguments: argparse.Namespace) -> int:
    from pipeline.layouts import convert

    print(convert(arguments.source, arguments.to, arguments.output).message)
    return EXIT_DONE


def _predict(arguments: argparse.Namespace) -> int:
    from pipeline.base.allocator import keep_freed_memory
    from pipeline.serving.predict import predict, summary

    keep_freed_memory()
    results = predict(arguments.model, arguments.input, arguments.output, arguments.device, arguments.strict)
    print(summary(results))
    return EXIT_DONE if all(result.status == "done" for result in results) else EXIT_SOME_CASES


def _score(arguments: argparse.Namespace) -> int:
    from pipeline.evaluation import score

    summary = score(arguments.pred, arguments.ref, arguments.labels, arguments.output)
    return EXIT_SOME_CASES if summary["not_scored"] else EXIT_DONE


def _image(arguments: argparse.Namespace) -> int:
    from pipeline.serving.image import build_image

    build_image(arguments.package, arguments.tag, base=arguments.base, engine=arguments.engine)
    return EXIT_DONE


def _serve(arguments: argparse.Namespace) -> int:
    from pipeline.serving.http import serve

    return serve(arguments.model, host=arguments.host, port=arguments.port, device=arguments.device)


def _view(arguments: argparse.Namespace) -> int:
    from pipeline.serving.view import view

    view(arguments.run, port=arguments.port, open_browser=not arguments.no_browser)
    return EXIT_DONE


def _check(arguments: argparse.Namespace) -> int:
    import json

    from pipeline.base.files import write_text
    from pipeline.base.runtime import Runtime
    from pipeline.data.faults import as_json, as_page
    from pipeline.data.manifest import read_manifest
    from pipeline.stages.load import DataConfig, LoadConfig, check, data_root, show_faults

    if arguments.source.suffix == ".json":
        data, load, runtime = DataConfig(manifest=arguments.source), LoadConfig(), Runtime()
    else:
        config = _load_config(arguments.source, arguments.overrides)
        data, load = config.data, config.load
        runtime = Runtime(config.device, config.executor.name, config.executor.workers)
    manifest = read_manifest(data.manifest)
    faults = check(manifest, data_root(data), runtime, load)
    if arguments.json:
        print(json.dumps(as_json(faults), indent=2))
    else:
        show_faults(faults, len(manifest.cases))
    if arguments.html:
        write_text(arguments.html, as_page(faults, len(manifest.cases), manifest.name))
    return EXIT_DATA if any(fault.severity == "fatal" for fault in faults) else EXIT_DONE


def _compare(arguments: argparse.Namespace) -> int:
    from pipeline.comparison import compare

    compare(arguments.sources, arguments.output)
    return EXIT_DONE
