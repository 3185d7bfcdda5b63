"""`segpipe image`: a container image with a model inside, built by whichever engine is installed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.base.errors import ConfigError, SegpipeError
from pipeline.base.machine import environment
from pipeline.packaging.model_package import ModelPackage, load_package
from pipeline.packaging.package_seal import SEAL

log = logging.getLogger(__name__)

ENGINES = ("docker", "podman", "buildah")
BASES = ("cpu", "cuda", "slim")
_SECRETS = {"pip_conf": "SEGPIPE_PIP_CONF", "ca_certificates": "SEGPIPE_CA_CERTIFICATES"}
_BUILD_ARGUMENTS = {"PYTHON_IMAGE": "SEGPIPE_PYTHON_IMAGE", "TORCH_CPU_INDEX": "SEGPIPE_TORCH_CPU_INDEX"}
_SOURCE = Path(__file__).resolve().parents[2]
_DOCKERFILE = _SOURCE / "docker" / "Dockerfile"


def build_image(package: Path, tag: str, base: str = "cpu", engine: str | None = None) -> None:
    """Builds image `tag` with the model in `package` (folder or zip) inside.

    base: cpu, cuda or slim (no torch). engine: docker, podman or buildah; None takes the first that works.
    What belongs to the build machine comes from its environment and leaves no trace in the image: SEGPIPE_WHEELS (a
    folder of wheels to install from, without a network), SEGPIPE_PIP_CONF (a pip.conf), SEGPIPE_CA_CERTIFICATES (a PEM
    file for pip's connections), SEGPIPE_PYTHON_IMAGE (another base than docker.io/library/python),
    SEGPIPE_TORCH_CPU_INDEX (where torch's CPU builds come from: a mirror's address). Raises ConfigError where no engine
    works or docker lacks buildx, this is no checkout of segpipe or the slim image could not run the package, DataError
    for a package that is not whole, SegpipeError where the build fails.
    """
    if not _DOCKERFILE.is_file():
        raise ConfigError(f"{_DOCKERFILE} is not there: `segpipe image` builds from a checkout of segpipe")
    if base not in BASES:
        raise ConfigError(f"--base {base!r} is not a variant; allowed: {', '.join(BASES)}")
    chosen = engine if engine is not None else first_engine()
    if not works(chosen):
        raise ConfigError(f"--engine {chosen}: not installed, or its daemon does not answer; try another engine")
    opened = load_package(package)
    if base == "slim":
        _require_onnx(opened)
    if chosen == "docker":
        _require_buildx()
    with tempfile.TemporaryDirectory(prefix="segpipe-image-") as temporary:
        command = build_command(chosen, tag, base, model_context(opened, Path(temporary)), Path(temporary))
        log.info("building %s (%s, %s) with model %s %s", tag, chosen, base, opened.name, opened.version)
        done = subprocess.run(command, cwd=_SOURCE, check=False)  # noqa: S603, a fixed program and our own arguments
    if done.returncode != 0:
        raise SegpipeError(f"{chosen} could not build {tag} (its exit code: {done.returncode}); its output says why")
    log.info("built %s", tag)


def _require_onnx(package: ModelPackage) -> None:
    """Refuses a package that an image without torch could not run."""
    missing = [path.stem for path in package.weights if f"exports/{path.stem}.onnx" not in package.seal.files]
    if missing:
        raise ConfigError(
            f"--base slim has no torch and runs the package's ONNX exports, which {package.folder} lacks for "
            f"{', '.join(missing)}: add package.exports: [onnx] to the configuration, run `segpipe package CONFIG`, "
            "and build again"
        )


def first_engine() -> str:
    """The first engine that works here; a ConfigError where there is none."""
    for engine in ENGINES:
        if works(engine):
            return engine
    raise ConfigError(f"no container engine works here; install one of {', '.join(ENGINES)} and start its daemon")


def works(engine: str) -> bool:
    """Whether the engine is installed and answers."""
    if engine not in ENGINES or shutil.which(engine) is None:
        return False
    try:
        asked = subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False)  # noqa: S603, from ENGINES
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _is_podman() -> bool:
    """Whether what is called docker is podman, as some distributions have it."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    return "podman" in (asked.stdout + asked.stderr).lower()


def _require_buildx() -> None:
    """Refuses a docker that only has its old builder, which says of ours `unknown flag: --build-context`."""
    asked = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)  # noqa: S607
    if asked.returncode != 0 and not _is_podman():
        raise ConfigError(
            "--engine docker: its plugin buildx is missing, which hands the model to the build; install it (package "
            "docker-buildx, or docker-buildx-plugin where docker is from Docker's own repository), or try --engine "
            "podman or buildah"
        )


def build_command(engine: str, tag: str, base: str, model: Path, temporary: Path) -> list[str]:
    """The engine's command line; `temporary` is where an empty folder may be made for a context that is not given."""
    empty = temporary / "empty"
    empty.mkdir(exist_ok=True)
    wheels = _given("SEGPIPE_WHEELS") or empty
    command = [engine, "build", "--file", str(_DOCKERFILE), "--tag", tag]
    if engine != "docker" or _is_podman():  # their default format has no health check
        command += ["--format", "docker", "--ignorefile", f"{_DOCKERFILE}.dockerignore"]
    if engine == "buildah" and os.environ.get("BUILDAH_ISOLATION") is None and os.geteuid() == 0:
        command += ["--isolation", "chroot"]
    command += ["--build-context", f"model={model}", "--build-context", f"wheels={wheels}"]
    command += ["--build-arg", f"BASE={base}", "--build-arg", f"GIT_REVISION={_revision()}"]
    for argument, variable in _BUILD_ARGUMENTS.items():
        if value := os.environ.get(variable):
            command += ["--build-arg", f"{argument}={value}"]
    nothing = temporary / "nothing"
    nothing.write_text("", encoding="utf-8")
    for secret, variable in _SECRETS.items():
        command += ["--secret", f"id={secret},src={_given(variable) or nothing}"]
    return [*command, "."]


def _given(variable: str) -> Path | None:
    """The place that a variable names, from where the command was called; a ConfigError where nothing is there."""
    value = os.environ.get(variable)
    if not value:
        return None
    place = Path(value).absolute()
    if not place.exists():
        raise ConfigError(f"{variable}: {place} is not there; correct it, or leave the variable out")
    return place


def model_context(package: ModelPackage, temporary: Path) -> Path:
    """A folder with the files that belong to the package, and no others."""
    folder = temporary / "model"
    for name in (SEAL, *package.seal.files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.folder / name, folder / name)
    # Any user of the container reads them, whatever this one's files usually are for others.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _revision() -> str:
    return str(environment()["git_revision"] or "unknown")
