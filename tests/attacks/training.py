"""Training that is killed at any moment and resumed ends with the weights of one that is not."""
from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from torch import nn

from retrieval.distributed import init_cpu_group
from retrieval.encoders import BatchNormNeck
from retrieval.hooks import seed_everything
from retrieval.registry import MODELS
from retrieval.runs.last_checkpoint import last_checkpoint

from ..hooks.running import ToyEncoder, differences, essence
from ..hooks.test_exact_resume import ITERATIONS, checkpoint, head, runner
from ..hooks.test_exact_resume import KINDS as TESTED
from .attack import Tally, attack, end, forked, wait

LIMIT = 100  # seconds that a run may take


@MODELS.register_module()
class ToyNeck(nn.Sequential):
    """Features before a neck and after it."""

    def __init__(self) -> None:
        super().__init__(ToyEncoder(), BatchNormNeck(4))


KINDS: dict[str, dict[str, Any]] = {
    **TESTED,
    'batch-norm neck with two heads': dict(hooks=[dict(type='EMAHook')], model=dict(
        image_encoder=dict(type='ToyNeck'), head=dict(
            type='BNNeckHead',
            before=dict(type='MetricHead', loss=dict(type='PML.TripletMarginLoss')),
            after=dict(type='ClassificationHead', num_classes=3, in_features=4)))),
    'logits': dict(model=dict(head=dict(type='LogitsHead'))),
    'proxies': dict(model=head(loss=dict(type='PML.ProxyAnchorLoss', num_classes=3,
                                         embedding_size=4))),
    'adaptive margins with sub-centres': dict(model=head(loss=dict(
        type='AdaptiveSubCenterArcFaceLoss', num_classes=3, embedding_size=4))),
    'learnable temperature': dict(model=head(loss=dict(
        type='LearnableTemperatureSoftmaxLoss', num_classes=3, embedding_size=4))),
    'two losses and a memory': dict(model=head(loss=[
        dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=4),
        dict(type='retrieval.CrossBatchMemory', loss=dict(type='NTXentLoss'), embedding_size=4,
             memory_size=11)])),
}
# gradients that no step has used yet are kept by one process alone; three classes are too few for
# batches of two on each of two processes
ON_TWO = [name for name in KINDS if 'accumulated' not in name and 'sampler' not in KINDS[name]]


def train(kind: str, folder: Path, last: str | None, processes: int = 1, number: int = 0,
          port: int = 0) -> None:
    """Train, or go on with the last checkpoint."""
    Config.pretty_text = ''  # type: ignore[assignment]  # takes most of the time of a toy run
    seed_everything(99)
    options: dict[str, Any] = dict(KINDS[kind])
    if processes > 1:
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(processes),
                          MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        init_cpu_group('pytorch')
        options.update(launcher='pytorch', model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True))
    runner(folder, **options, resume=last is not None, load_from=last).train()
    if processes > 1:
        dist.barrier()
        os._exit(0)


def start(kind: str, folder: Path, processes: int, port: int) -> list[int]:
    """The children that train."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        last = last_checkpoint(folder)[0] if folder.is_dir() else None
    except ValueError:  # the first was being written
        shutil.rmtree(folder)
        last = None

    def act(number: int) -> None:
        for stream in (1, 2):
            os.dup2(quiet if not os.environ.get('ATTACK_VERBOSE') else stream, stream)
        train(kind, folder, last, processes, number, port)
    try:
        return [forked(lambda number=number: act(number)) for number in range(processes)]
    finally:
        os.close(quiet)


def _port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


def run(kind: str, folder: Path, processes: int) -> list[int | None]:
    """Train to the end; the exit codes."""
    return [wait(child, LIMIT) for child in start(kind, folder, processes, _port())]


def _attack(tally: Tally, processes: int) -> None:
    kinds = list(KINDS) if processes == 1 else ON_TWO
    wanted: dict[str, tuple[Any, float]] = {}
    number, last = 0, {1: ITERATIONS, 2: 4}[processes]  # of 12 images in two epochs
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-') as name:
        while tally.goes_on():
            kind = kinds[number % len(kinds)]
            number += 1
            if kind not in wanted:
                begin = time.monotonic()
                codes = run(kind, Path(name, f'whole {kind}'), processes)
                if codes != [0] * processes:
                    tally.count(f'{kind}: a run that nothing disturbs ends with {codes}')
                    continue
                wanted[kind] = (essence(checkpoint(Path(name, f'whole {kind}'), last)),
                                time.monotonic() - begin)
            folder, (whole, seconds) = Path(name, f'killed {number}'), wanted[kind]
            for _ in range(3):  # kills of one run
                children = start(kind, folder, processes, _port())
                time.sleep(tally.rng.uniform(0.2, 1.0) * seconds)
                for child in children:
                    end(child)
                if (folder / f'iter_{last}.pth').exists():
                    break
                tally.done += 1
            codes = run(kind, folder, processes)
            if codes != [0] * processes:
                tally.count(f'{kind}: resumed, it ended with {codes}', 0)
                continue
            found = essence(checkpoint(folder, last))
            apart = differences(whole, found)
            tally.count(f'{kind}: other in the end: {apart[:5]}' if apart else None, 0)
    tally.notes.append(f'{number} runs of {len(set(wanted))} kinds')


@attack('SIGKILL of training', 40, 0.1, 'kills')
def one_process(tally: Tally) -> None:
    """Every head and memory, one process."""
    _attack(tally, 1)


@attack('SIGKILL of training on two processes', 35, 0.12, 'kills')
def two_processes(tally: Tally) -> None:
    """Every head and memory, two processes that are killed together."""
    torch.manual_seed(0)
    _attack(tally, 2)
