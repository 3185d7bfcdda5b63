"""Two processes with half the batch each learn what one process with the whole batch learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.config.train import TrainConfig
from pipeline.dataset.phantoms import make_phantoms
from pipeline.models.checkpoint import load_weights
from pipeline.preprocessing.plan import read_plan
from pipeline.sampling.patch_store import open_store
from pipeline.training.distributed import World
from pipeline.training.network_loss_optimizer import make_train_step
from pipeline.training.train_context import TrainContext
from tests.training.prepared_store import prepare
from tests.training.tiny_training import draw
from tests.training.tiny_training import make_train_step as small_learner

PROGRAM = """
import json, logging, sys
from pathlib import Path
import torch
from pipeline.base.machine import Runtime
from pipeline.stages.stage_configs import TrainStageConfig
from pipeline.stages.train import run
from pipeline.config.train import TrainConfig
logging.basicConfig(level=logging.INFO)
inputs = {name: Path(sys.argv[1]) / name for name in ("plan", "sample")}
loss = {"name": "dice_ce", **json.loads(sys.argv[3])}
sgd = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
settings = TrainConfig(loss=loss, tensorboard=False, save_every=1e-9, optimizer=sgd)
run(TrainStageConfig(train=settings, seed=0), inputs, Path(sys.argv[2]), Runtime("cpu", "serial", 1))
"""


def _train(root: Path, out: Path, loss: dict[str, object], processes: int) -> str:
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [str(root), str(out), json.dumps(loss)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments],
            env={
                **environment,
                **({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} if processes > 1 else {}),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(said)
    return said[0]


@pytest.mark.parametrize(
    ("loss", "overlapping", "instead"),
    [
        ({"name": "dice", "batch": True}, False, "use dice_ce without one_vs_rest, batch: false, or one process"),
        ({"name": "dice_topk"}, False, "use dice_ce without one_vs_rest, another loss, or one process"),
        ({"name": "dice_ce", "batch": True, "one_vs_rest": True}, False, "dice_ce with softmax alone sums"),
        ({"name": "dice_ce", "batch": True}, True, "use batch: false, or one process"),
    ],
)
def test_sums_over_the_batch_that_processes_would_not_share_are_refused(tmp_path, loss, overlapping, instead):
    structures = {"large": (1, 2), "small": (2,)} if overlapping else {"large": (1,), "small": (2,)}
    inputs = prepare(tmp_path, overlapping=overlapping, structures=structures)
    store = open_store(inputs["sample"] / "store")
    shop = TrainContext(TrainConfig(loss=loss), read_plan(inputs["plan"]), store, 0, torch.device("cpu"), World(0, 2))
    with pytest.raises(ConfigError, match=instead):
        make_train_step(shop)


def test_processes_wait_for_no_gradient_of_a_level_that_weighs_nothing(tmp_path):
    """They average those of all parameters; the second step would not begin where a head has had none."""
    alone, beside = (small_learner(level_weights=(1.0, 0.0), distributed=among) for among in (False, True))
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.FileStore(str(tmp_path / "store"), 1))
    try:
        beside.forward = nn.parallel.DistributedDataParallel(beside.network)
        for step in range(3):
            alone.step(draw(step), step, 0.05)
            beside.step(draw(step), step, 0.05)
    finally:
        dist.destroy_process_group()
    image = draw(99).image
    torch.testing.assert_close(beside.network.eval()(image), alone.network.eval()(image))


@pytest.mark.slow
@pytest.mark.parametrize("loss", [{}, {"batch": True}, {"class_weights": [0.02, 1.0, 5.0]}])
def test_two_processes_learn_what_one_with_twice_the_batch_learns(tmp_path, loss):
    """With instance norm; sums over the batch and over weights run over both processes: it is the whole batch's."""
    for name, size in (("one", 4), ("two", 2)):
        prepare(tmp_path / name, batch_size=size, max_steps=3)
    _train(tmp_path / "one", tmp_path / "one/out", loss, processes=1)
    _train(tmp_path / "two", tmp_path / "two/out", loss, processes=2)
    one, two = (load_weights(tmp_path / name / "out/fold_0/last.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-3)
    begun = [
        (tmp_path / name / "out/fold_0/metrics.csv").read_text(encoding="utf-8").splitlines()[1]
        for name in ("one", "two")
    ]
    losses = [float(line.split(",")[2]) for line in begun]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


CONFIG = """\
name: two
device: cpu
data: {manifest: phantoms/manifest.json}
executor: {name: serial}
plan: {patch_size: [16, 16, 16], batch_size: 1, precision: fp32}
train:
  max_steps: 3
  network: {name: unet, channels: [4, 8, 8]}
  validation: {interval: 2, cases: 1}
  num_threads: 1
"""


@pytest.mark.slow
def test_torchrun_trains_one_run_folder(tmp_path):
    """The documented command on CPUs: both processes end with 0, and one finished train folder is left."""
    make_phantoms(tmp_path / "phantoms", cases=4, shape=(24, 24, 16))
    (tmp_path / "two.yaml").write_text(CONFIG)
    own = [str(tmp_path / "two.yaml"), "--out", str(tmp_path / "run")]
    for stage in ("load", "plan", "sample"):
        _pipeline([], stage, *own)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    said = _pipeline(torchrun, "train", *own)
    assert "train     done" in said
    folders = {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()}
    assert folders == {"load", "plan", "sample", "train"}
    rows = (tmp_path / "run/train/fold_0/metrics.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3"]
    assert read_json(tmp_path / "run/train/train.json")["steps"] == 3
    assert "up to date" in _pipeline(torchrun, "train", *own)


def _pipeline(through: list[str], *arguments: str) -> str:
    """Runs `python -m [THROUGH...] pipeline ARGUMENTS...` and returns what it said; it must end with 0."""
    result = subprocess.run(
        [sys.executable, "-m", *through, "pipeline", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
