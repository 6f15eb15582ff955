"""Gathering and sharding that is right on any number of processes.

On one process every function returns what it was given, without touching ``torch.distributed``.
"""
from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """How many processes there are; 1 where no process group is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def unwrapped(model: Any) -> Any:
    """The model without what wraps it on several processes, as DistributedDataParallel.

    Example:
        >>> from torch import nn
        >>> unwrapped(nn.Identity())
        Identity()
    """
    from mmengine.model import is_model_wrapper  # late: it imports the engine's models

    return model.module if is_model_wrapper(model) else model


def init_cpu_group(launcher: str) -> None:
    """Join the gloo group that ``torchrun`` or Slurm describes, on a machine without a GPU.

    MMEngine's own initialisation sets a CUDA device whatever the backend, and leaves the group
    alone where there is one already. Who has not come after five minutes has ended.

    Raises:
        ValueError: the launcher's environment is missing.
    """
    if torch.cuda.is_available() or dist.is_initialized():
        return
    if launcher == 'slurm':
        _describe_slurm()
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError("--launcher pytorch was given, but torchrun's environment (RANK, "
                         'WORLD_SIZE) is missing: start the command with '
                         '`torchrun --nproc-per-node N`, or leave --launcher out.')
    if launcher in ('slurm', 'pytorch'):
        dist.init_process_group('gloo', timeout=_STARTING)
        dist.distributed_c10d._set_pg_timeout(dist.default_pg_timeout, dist.group.WORLD)
        if world_size() > 1:  # before there is work: the end of a process is noticed during it
            _group_of_meetings(_JOINING)


def _describe_slurm() -> None:
    """Set the variables that PyTorch reads from those of a Slurm step."""
    names = ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST')
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(f"--launcher slurm was given, but Slurm's environment "
                         f'({", ".join(missing)}) is missing: start the command with `srun`, or '
                         'leave --launcher out.')
    number, count, nodes = (os.environ[name] for name in names)
    os.environ.update(RANK=number, WORLD_SIZE=count,
                      LOCAL_RANK=os.environ.get('SLURM_LOCALID', '0'))
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        one_node = os.environ.get('SLURM_NNODES', os.environ.get('SLURM_JOB_NUM_NODES')) == '1'
        os.environ['MASTER_ADDR'] = '127.0.0.1' if one_node else subprocess.run(
            ['scontrol', 'show', 'hostnames', nodes], check=True, capture_output=True,
            text=True).stdout.split()[0]


_made: list[Any] = []  # the default group, and the one of meetings among its processes
_STARTING, _JOINING, _PATIENCE = timedelta(minutes=5), timedelta(minutes=1), timedelta(days=7)


def _group_of_meetings(joining: timedelta = _PATIENCE) -> Any:
    """One for the life of the default group. Where all come to join it at the same moment, who is
    missing has ended. Once it is joined, the end of a process is noticed at once.
    """
    if not _made or _made[0] is not dist.group.WORLD:
        joined = dist.new_group(backend='gloo', timeout=joining)
        dist.distributed_c10d._set_pg_timeout(_PATIENCE, joined)
        _made[:] = [dist.group.WORLD, joined]
    return _made[1]


class Meeting:
    """Where the processes wait for each other for as long as it takes, up to a week.

    The barrier of the default group gives up after some minutes; processes that share work that
    takes hours may differ by more.
    """

    def __init__(self) -> None:
        self._group = _group_of_meetings() if world_size() > 1 else None

    def wait(self) -> None:
        """Return when every process has come here."""
        if self._group is not None:
            dist.barrier(group=self._group)

    def agree(self, failure: Exception | None) -> None:
        """Return where no process has failed.

        Raises:
            Exception: ``failure``, this process's own.
            ValueError: another process has failed; the message is its error's.
        """
        said: list[str | None] = [None if failure is None else str(failure)]
        if self._group is not None:
            said *= world_size()
            dist.all_gather_object(said, said[0], group=self._group)
        if failure is not None:
            raise failure
        for number, message in enumerate(said):
            if message is not None:
                raise ValueError(f'Process {number} has failed: {message}')

    def from_first(self, value: Any = None) -> Any:
        """The first process's ``value``, a small Python object, on every process."""
        if self._group is None:
            return value
        values: list[Any] = [None] * world_size()
        dist.all_gather_object(values, value if rank() == 0 else None, group=self._group)
        return values[0]


def shard(count: int, part: int | None = None, parts: int | None = None) -> range:
    """The contiguous share of ``range(count)`` that one process works on; shares differ by at
    most one in length and together cover every number once.
    """
    part = rank() if part is None else part
    parts = world_size() if parts is None else parts
    return range(count * part // parts, count * (part + 1) // parts)


def _communication_device() -> torch.device:
    if dist.get_backend() == 'nccl':
        return torch.device('cuda', torch.cuda.current_device())
    return torch.device('cpu')


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes one after another, ``(n_p, …) -> (sum of n_p, …)``.

    Processes may hold different numbers of rows, also none, of one dtype and row shape.
    """
    return rows if world_size() == 1 else _gather_rows(rows)[0]


def _gather_rows(rows: Tensor) -> tuple[Tensor, list[int]]:
    """All processes' rows one after another, and how many each has."""
    device = _communication_device()
    local = rows.detach().contiguous().to(device)
    count = torch.tensor([len(local)], device=device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    lengths = [int(c) for c in counts]
    padded = local.new_zeros((max(lengths), *local.shape[1:]))
    padded[:len(local)] = local
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    joined = torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])
    return joined.to(rows.device), lengths


class _GatherWithGradient(torch.autograd.Function):
    """:func:`all_gather_rows`, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        joined, lengths = _gather_rows(rows)
        start = sum(lengths[:rank()])
        ctx.own = slice(start, start + len(rows))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.to(_communication_device(), copy=True).contiguous()
        dist.all_reduce(total)
        return total[ctx.own].to(gradient.device)


def all_gather_with_gradient(rows: Tensor) -> Tensor:
    """:func:`all_gather_rows` that can be differentiated, on every process at once.

    The gradient of a process's rows is the sum over the processes of what each makes of them. Where
    every process computes the same loss from all rows, that is ``world_size`` times the loss's
    gradient, and DistributedDataParallel, which averages over the processes, makes it the gradient
    of one process that holds all rows. Weights of the loss itself are averaged likewise, from equal
    gradients, and want no factor.

    Args:
        rows: ``(n_p, …)`` float; n_p may differ between processes.

    Returns:
        ``(sum of n_p, …)``, process after process.
    """
    return rows if world_size() == 1 else _GatherWithGradient.apply(rows)


def all_gather_list(items: Sequence[Any]) -> list[Any]:
    """The items of all processes one after another, for small Python objects."""
    if world_size() == 1:
        return list(items)
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def first_of_each(index: Tensor) -> Tensor:
    """Positions of the first occurrence of every number in ``index (n,)``, by rising number."""
    _, order = torch.sort(index, stable=True)
    ordered = index[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def gather_samples(index: Tensor, *columns: Tensor | Sequence[Any]) -> list[Any]:
    """Every sample of all processes exactly once, in the order of its number in the dataset.

    A distributed sampler repeats samples to fill the last batch; they are recognised by their
    number and dropped.

    Args:
        index: the samples' rows in their dataset, ``(n,)`` int64.
        columns: what belongs to the samples, tensors ``(n, …)`` or lists of length n.

    Returns:
        ``[index, *columns]``, on every process the same, each column of the kind it came in.
    """
    for column in columns:
        if len(column) != len(index):
            raise ValueError(f'A column has {len(column)} entries for {len(index)} samples.')
    everyone = all_gather_rows(index)
    keep = first_of_each(everyone)
    out: list[Any] = [everyone[keep]]
    positions = keep.tolist()
    for column in columns:
        if isinstance(column, Tensor):
            out.append(all_gather_rows(column)[keep])
        else:
            gathered = all_gather_list(column)
            out.append([gathered[i] for i in positions])
    return out
