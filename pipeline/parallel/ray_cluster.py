"""Work per case on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipeline.base.errors import missing_extra

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], killed: Callable[[Item], Result]
) -> Iterator[Any]:
    """The results in order; what a call raises is raised here, and `killed` stands for a worker that died."""
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "ray", "executor.name: ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(function)
    for item, reference in [(item, remote.remote(item)) for item in items]:
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # what the call raised, with a trace of the far process around it
            raise error.cause from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            result = killed(item)
        yield result
