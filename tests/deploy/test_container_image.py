"""The engine's command line: what goes into an image, and what of the building machine must not."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.base.errors import ConfigError, SegpipeError
from pipeline.deploy import container_image
from pipeline.deploy.container_image import build_command, build_image, first_engine
from pipeline.deploy.server.server_settings import read_limits
from pipeline.packaging.model_package import load_package
from tests.packaging.small_package import small_package


def test_other_engines_than_docker_are_told_to_keep_the_health_check(tmp_path: Path) -> None:
    assert "--format" not in build_command("docker", "m:1", "cpu", tmp_path, tmp_path)
    for engine in ("podman", "buildah"):
        command = build_command(engine, "m:1", "cpu", tmp_path, tmp_path)
        assert command[command.index("--format") + 1] == "docker"


def test_the_variant_and_the_model_are_handed_over(tmp_path: Path) -> None:
    command = build_command("docker", "my-model:1.0", "slim", tmp_path / "model", tmp_path)
    assert command[command.index("--tag") + 1] == "my-model:1.0"
    assert "BASE=slim" in command
    assert f"model={tmp_path / 'model'}" in command


def test_wheels_and_pip_configuration_are_mounts_and_secrets_never_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_conf = tmp_path / "mine.conf"
    pip_conf.write_text("[global]\nindex-url = https://user:secret@example.org/simple\n")
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPIPE_WHEELS", "wheels")  # from where the command is called, not from the checkout
    monkeypatch.setenv("SEGPIPE_PIP_CONF", str(pip_conf))
    command = build_command("docker", "m:1", "cpu", tmp_path, tmp_path)
    assert f"wheels={tmp_path / 'wheels'}" in command
    assert f"id=pip_conf,src={pip_conf}" in command
    assert not any("secret@" in word for word in command)
    dockerfile = (Path(container_image.__file__).parents[2] / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in dockerfile.splitlines():
        assert not (line.startswith(("COPY", "ADD")) and ("wheels" in line or "pip_conf" in line))


def test_certificates_are_a_secret_and_everything_not_given_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SEGPIPE_PIP_CONF", "SEGPIPE_CA_CERTIFICATES"):
        monkeypatch.delenv(variable, raising=False)
    secrets = [word for word in build_command("docker", "m:1", "cpu", tmp_path, tmp_path) if word.startswith("id=")]
    assert secrets == [f"id={name},src={tmp_path / 'nothing'}" for name in ("pip_conf", "ca_certificates")]
    assert (tmp_path / "nothing").read_bytes() == b""
    monkeypatch.setenv("SEGPIPE_CA_CERTIFICATES", str(tmp_path / "hospital.pem"))
    with pytest.raises(ConfigError, match=r"SEGPIPE_CA_CERTIFICATES: .*hospital\.pem is not there"):
        build_command("docker", "m:1", "cpu", tmp_path, tmp_path)
    (tmp_path / "hospital.pem").touch()
    command = build_command("docker", "m:1", "cpu", tmp_path, tmp_path)
    assert f"id=ca_certificates,src={tmp_path / 'hospital.pem'}" in command


def test_podman_under_the_name_of_docker_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho podman version 4.9.4\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "--format" in build_command("docker", "m:1", "cpu", tmp_path, tmp_path)


@pytest.mark.parametrize(("version", "refused"), [("Docker version 28.2.2", True), ("podman version 4.9.4", False)])
def test_a_docker_that_has_only_its_old_builder_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    """As Debian's docker.io is without docker-buildx; podman under docker's name has no buildx, and needs none."""
    answers = f'[ "$1" != buildx ] || exit 1\n[ "$1" != build ] || exit 7\necho {version}\n'
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{answers}")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    package = small_package(tmp_path / "package")
    error, said = (ConfigError, "docker-buildx") if refused else (SegpipeError, "exit code: 7")
    with pytest.raises(error, match=said):
        build_image(package, "m:1", engine="docker")


def test_a_mirror_of_torch_s_builds_reaches_the_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_TORCH_CPU_INDEX", "https://mirror.example.org/torch-cpu")
    assert "TORCH_CPU_INDEX=https://mirror.example.org/torch-cpu" in build_command(
        "docker", "m:1", "cpu", tmp_path, tmp_path
    )
    assert "ARG TORCH_CPU_INDEX" in (Path(container_image.__file__).parents[2] / "docker" / "Dockerfile").read_text(
        encoding="utf-8"
    )


def test_the_model_can_be_read_by_any_user_whatever_this_ones_files_are(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        context = container_image.model_context(load_package(small_package(tmp_path / "package")), tmp_path / "context")
    finally:
        os.umask(before)
    modes: dict[bool, set[int]] = {True: set(), False: set()}
    for path in (context, *context.rglob("*")):
        modes[path.is_dir()].add(path.stat().st_mode & 0o777)
    assert modes == {True: {0o755}, False: {0o644}}


def test_a_package_without_exports_makes_no_slim_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_image, "works", lambda engine: True)
    package = small_package(tmp_path / "package")
    with pytest.raises(
        ConfigError, match=r"runs the package's ONNX exports, which .* lacks .*package.exports: \[onnx\]"
    ):
        build_image(package, "m:1", "slim", "docker")


def test_an_engine_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install one of docker, podman, buildah"):
        first_engine()
    with pytest.raises(ConfigError, match="--engine podman: not installed"):
        build_image(tmp_path, "m:1", engine="podman")


def test_every_locked_requirement_is_pinned_with_hashes() -> None:
    locks = sorted((Path(container_image.__file__).parents[2] / "docker" / "requirements").glob("*.lock"))
    assert [path.stem for path in locks] == ["build", "cpu", "cuda", "slim"]
    for path in locks:
        entries = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        for entry in entries:
            assert "==" in entry.split()[0], f"{path.name}: {entry}"
            assert "--hash=sha256:" in entry, f"{path.name}: {entry}"


def test_the_images_with_torch_can_run_every_network_that_can_be_trained(repository: Path) -> None:
    """A network may need an extra (Swin UNETR: einops): without it, the image would refuse its own model."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = {re.split(r"[<>=]", entry)[0] for name in ("swinunetr", "dicom", "serve") for entry in extras[name]}
    assert {"einops", "highdicom", "uvicorn"} <= needed
    for variant in ("cpu", "cuda"):
        lock = (repository / f"docker/requirements/{variant}.lock").read_text(encoding="utf-8")
        assert needed <= set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)), variant


def test_no_image_carries_triton_which_would_look_for_a_c_compiler(repository: Path) -> None:
    """Where it is there, torch calls it for products of a column and a row; without a compiler that fails."""
    for lock in (repository / "docker" / "requirements").glob("*.lock"):
        assert "triton==" not in lock.read_text(encoding="utf-8"), lock.name
    assert "--no-emit-package triton" in (repository / "docker" / "lock.sh").read_text(encoding="utf-8")


def test_only_the_variant_with_cuda_asks_nvidias_runtime_for_gpus(repository: Path) -> None:
    stages = (repository / "docker" / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")
    asking = [stage for stage in stages if "NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute" in stage]
    assert [stage.splitlines()[0].split()[-1] for stage in asking] == ["for-cuda"]
    assert stages[-1].startswith("for-${BASE}\n")


def test_the_slim_variant_has_neither_torch_nor_monai() -> None:
    lock = (Path(container_image.__file__).parents[2] / "docker" / "requirements" / "slim.lock").read_text(
        encoding="utf-8"
    )
    assert "torch" not in lock
    assert "monai" not in lock


def test_what_the_shipped_deployments_take_on_fits_into_the_disk_that_they_give(repository: Path) -> None:
    """Those that wait, each packed and unpacked, and the running case with what is made of it, against /tmp."""
    service = yaml.safe_load((repository / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]["segpipe"]
    pod = next(yaml.safe_load_all((repository / "docker/kubernetes.yaml").read_text(encoding="utf-8")))["spec"][
        "template"
    ]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert service["tmpfs"] == ["/tmp:size=6g,mode=1777"] and volume["emptyDir"]["sizeLimit"] == "8Gi"
    of_kubernetes = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    of_compose = {name: str(value) for name, value in service["environment"].items()}
    for environment, gib in ((of_compose, 6), (of_kubernetes, 8)):
        limits = read_limits(environment)
        waiting, running = limits.queue * (limits.upload_mib + limits.unpacked_mib), 3 * limits.unpacked_mib
        assert waiting + running < 0.95 * gib * 1024
