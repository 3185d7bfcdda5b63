"""What the service takes on, and how the environment says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base.errors import ConfigError


@dataclass(frozen=True)
class ServiceLimits:
    """Each comes from an environment variable (in brackets)."""

    queue: int = 8
    """Cases that may wait beside the one that runs; the next is told 429. [SEGPIPE_QUEUE]"""
    upload_mib: int = 512
    """Largest request. [SEGPIPE_MAX_UPLOAD_MIB]"""
    unpacked_mib: int = 4096
    """Largest scan, once unpacked and once on the model's grid. [SEGPIPE_MAX_UNPACKED_MIB]"""
    timeout_s: float = 600.0
    """Longest time for one case, waiting left aside. [SEGPIPE_TIMEOUT_S]"""
    upload_s: float = 120.0
    """Longest time for an upload, and for the answer to be read. [SEGPIPE_UPLOAD_S]"""
    token: str | None = None
    """Where set, requests need `Authorization: Bearer TOKEN`. [SEGPIPE_TOKEN]"""

    @property
    def upload_bytes(self) -> int:
        return self.upload_mib * 2**20

    @property
    def unpacked_bytes(self) -> int:
        return self.unpacked_mib * 2**20


def read_limits(environment: Mapping[str, str]) -> ServiceLimits:
    """The limits that the environment asks for; a ConfigError names the variable that is no positive number."""

    def number(name: str, default: float) -> float:
        try:
            value = float(environment.get(name) or default)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf") or (value == 0 and name != "SEGPIPE_QUEUE"):
            raise ConfigError(f"{name}={environment[name]!r} must be a positive number, for instance {default:g}")
        return value

    standard = ServiceLimits()

    def whole(name: str, default: int) -> int:
        value = number(name, default)
        if value != int(value):
            raise ConfigError(f"{name}={environment[name]!r} must be a whole number, for instance {default}")
        return int(value)

    return ServiceLimits(
        queue=whole("SEGPIPE_QUEUE", standard.queue),
        upload_mib=whole("SEGPIPE_MAX_UPLOAD_MIB", standard.upload_mib),
        unpacked_mib=whole("SEGPIPE_MAX_UNPACKED_MIB", standard.unpacked_mib),
        timeout_s=number("SEGPIPE_TIMEOUT_S", standard.timeout_s),
        upload_s=number("SEGPIPE_UPLOAD_S", standard.upload_s),
        token=environment.get("SEGPIPE_TOKEN", "").strip() or None,  # a secret's file often ends with a new line
    )
