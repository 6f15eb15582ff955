"""The machine and the installed packages, as far as this package depends on them."""
from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from .finding import Finding, gather

_PYTHONS = (3, 10), (3, 13)  # the first and the last that it runs on
_INSTRUCTIONS = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8', 'asimd')
_LEAST_DISK, _LEAST_SHARED = 5e9, 1e9  # bytes
_LEAST_FILES = 1024
_ROOM = 'make room, or write --work-dir and --out on another disk'


def examine_machine(folder: str | os.PathLike[str] = '.', milvus: str | None = None
                    ) -> Iterator[Finding]:
    """Look at Python, the packages, the processor, the disk and, where it is named, Milvus.

    Args:
        folder: where results are to be written.
        milvus: the address or file of a Milvus that is to be reached.

    Example:
        >>> next(examine_machine()).name
        'Python'
    """
    yield from gather([
        ('Python', lambda: [python(sys.version_info)]), ('torch', torch_build),
        ('processor', processor), ('threads', threads), ('GPU', gpu), ('engine', engine),
        ('faiss', faiss), ('disk', lambda: disk(folder)), ('limits', limits),
        ('Milvus', lambda: reach_milvus(milvus))])


def python(running: Sequence[Any]) -> Finding:
    """The version of Python, given as ``sys.version_info``.

    Example:
        >>> python((3, 8, 1)).level
        'error'
    """
    first, last = _PYTHONS
    found = '.'.join(map(str, running[:3])) + f' on {platform.system()} {platform.machine()}'
    if not first <= tuple(running[:2]) <= last:
        return Finding('Python', 'error', found, f'use one from {first[0]}.{first[1]} to '
                       f'{last[0]}.{last[1]}')
    return Finding('Python', 'ok', found)


def torch_build() -> Iterator[Finding]:
    """Which torch, for what it was built, and whether torchvision fits it."""
    import torch

    kind = f'CUDA {torch.version.cuda}' if torch.version.cuda else \
        f'ROCm {torch.version.hip}' if torch.version.hip else 'CPU'
    yield Finding('torch', 'ok', f'{torch.__version__}, built for {kind}')
    try:
        from torchvision.ops import nms
        nms(torch.tensor([[0., 0., 1., 1.]]), torch.ones(1), 0.5)
    except Exception as error:  # its operators are compiled against one torch
        yield Finding('torchvision', 'warning', f'the compiled operators of '
                      f'{version("torchvision")} do not load with this torch '
                      f'({type(error).__name__}); its transforms and most models do',
                      'install both from one index in one command: pip install torch torchvision')
    else:
        yield Finding('torchvision', 'ok', version('torchvision'))


def processor() -> Iterator[Finding]:
    """How many cores may be used, their instructions, and which of these torch uses."""
    import torch

    flags = _flags()
    cores, uses = usable_cores(), torch.backends.cpu.get_cpu_capability()
    has = [name for name in _INSTRUCTIONS if name in flags]
    found = f'{cores} of {os.cpu_count()} cores; {", ".join(has) or "no vector instructions known"}'
    if uses in ('DEFAULT', 'default') and 'avx2' in flags:
        yield Finding('processor', 'warning', f'{found}; torch uses none of them',
                      'unset ATEN_CPU_CAPABILITY, or install a torch built for this processor')
        return
    yield Finding('processor', 'ok', f'{found}; torch uses {uses}')


def _flags() -> set[str]:
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return set()
    lines = [line for line in text.splitlines() if line.lower().startswith(('flags', 'features'))]
    return set(lines[0].partition(':')[2].split()) if lines else set()


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and the limit of its container.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else \
        os.cpu_count() or 1
    try:
        quota, period = Path('/sys/fs/cgroup/cpu.max').read_text().split()
        return cores if quota == 'max' else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def threads() -> Iterator[Finding]:
    """How many threads compute, and whether libraries stand in each other's way."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_info

    from ..index.faiss.factory import load_faiss

    load_faiss()  # brings its own
    np.ones((2, 2)) @ np.ones((2, 2))
    torch.ones(2, 2) @ torch.ones(2, 2)
    yield from thread_conflicts(threadpool_info(), torch.get_num_threads(), usable_cores(),
                                os.environ)


def thread_conflicts(pools: Sequence[Mapping[str, Any]], of_torch: int, cores: int,
                     environment: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the pools of threads of one process.

    Args:
        pools: as ``threadpoolctl.threadpool_info`` lists them.
        of_torch: the threads of torch.
        cores: how many may be used.
        environment: the process's variables.

    Example:
        >>> [one.level for one in thread_conflicts([], of_torch=8, cores=2, environment={})]
        ['warning']
    """
    runtimes = {str(pool.get('prefix')) for pool in pools if pool.get('user_api') == 'openmp'}
    blas = sorted({f'{pool.get("internal_api")} {pool.get("version") or ""}'.strip()
                   for pool in pools if pool.get('user_api') == 'blas'})
    counts = [of_torch, *(int(pool.get('num_threads', 1)) for pool in pools)]
    found = f'torch {of_torch}; {", ".join(blas) or "no BLAS known"}; ' \
        f'OpenMP {", ".join(sorted(runtimes)) or "none"}'
    if {'libiomp', 'libomp'} <= runtimes:
        yield Finding('threads', 'error', f'{found}. Two OpenMP runtimes of LLVM in one process '
                      'can hang or give wrong results', 'install numpy, torch and faiss all from '
                      'pip, or all from conda')
    elif max(counts) > cores:
        yield Finding('threads', 'warning', f'{found}. {max(counts)} threads on {cores} cores take '
                      'the time from each other', f'set OMP_NUM_THREADS={cores}')
    elif of_torch == 1 and cores > 1:
        name = next((name for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
                     if environment.get(name) == '1'), None)
        yield Finding('threads', 'warning', f'{found}. torch computes on one of {cores} cores'
                      + (f', since {name}=1' if name else ''),
                      f'unset {name}' if name else f'set OMP_NUM_THREADS={cores}')
    else:
        yield Finding('threads', 'ok', found)


def gpu() -> Iterator[Finding]:
    """The GPUs, and whether this torch can use them."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            yield Finding('GPU', 'ok', f'{torch.cuda.get_device_name(number)}, '
                          f'{free / 1e9:.1f} of {total / 1e9:.1f} GB free')
    elif shutil.which('nvidia-smi') or os.path.exists('/dev/nvidia0'):
        what = 'it finds no driver that fits' if torch.version.cuda else 'it was built without CUDA'
        yield Finding('GPU', 'warning', f'there is one, and this torch does not use it: {what}',
                      'update the driver' if torch.version.cuda else
                      'install torch and torchvision from the index of your CUDA version')
    else:
        yield Finding('GPU', 'ok', 'none; the CPU computes')


def engine() -> Iterator[Finding]:
    """Which distributions give mmengine, mmcv and mmpretrain, of which one each may be there."""
    from .. import __version__

    yield Finding('retrieval', 'ok', f'{__version__} in {Path(__file__).parents[1]}')
    installed = {(found.metadata['Name'] or '').lower(): found.version
                 for found in distributions()}
    yield one_of('mmengine', ('mmengine', 'mmengine-lite'), installed)
    yield one_of('mmcv', ('mmcv', 'mmcv-lite'), installed)
    for name in ('mmengine', 'mmcv'):
        import_module(name)
    if 'mmpretrain' in installed:
        yield Finding('mmpretrain', 'ok', installed['mmpretrain'])


def one_of(name: str, valid: Sequence[str], installed: Mapping[str, str]) -> Finding:
    """Whether just one of some distributions, which hold the same package, is installed.

    Args:
        name: of the package.
        valid: the distributions; what is advised where there is none is the last.
        installed: versions by distribution.

    Example:
        >>> one_of('mmcv', ('mmcv', 'mmcv-lite'), {'mmcv': '2.1.0', 'mmcv-lite': '2.1.0'}).level
        'error'
    """
    found = [f'{one} {installed[one]}' for one in valid if one in installed]
    if not found:
        return Finding(name, 'error', 'not installed', f'pip install {valid[-1]}')
    if len(found) > 1:
        return Finding(name, 'error', f'{" and ".join(found)} write into one folder',
                       f'pip uninstall {" ".join(valid)}, then install one of them')
    return Finding(name, 'ok', found[0])


def faiss() -> Iterator[Finding]:
    """Which faiss, and for which instructions it is compiled."""
    from ..index.faiss.factory import load_faiss

    library = load_faiss()
    names = [name for name in ('faiss-cpu', 'faiss-gpu', 'faiss-gpu-cu12', 'faiss-gpu-cu11')
             if _version(name)]
    if len(names) > 1:
        yield Finding('faiss', 'error', f'{" and ".join(names)} write into one folder',
                      f'pip uninstall {" ".join(names)}, then install one of them')
        return
    options = library.get_compile_options().strip() if hasattr(
        library, 'get_compile_options') else 'unknown'
    gpus = library.get_num_gpus() if hasattr(library, 'get_num_gpus') else 0
    yield Finding('faiss', 'ok', f'{names[0] if names else "faiss"} {library.__version__}, '
                  f'{options}' + (f', on {gpus} GPUs' if gpus else ''))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def disk(folder: str | os.PathLike[str]) -> Iterator[Finding]:
    """Room and rights in the folder of the results, for temporary files and shared memory."""
    inside = Path(os.path.abspath(folder))
    while not inside.exists():
        inside = inside.parent
    for what, place in (('results', inside), ('temporary', Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding('disk', 'error', f'{str(place)!r} ({what}) cannot be written to: '
                          f'{error.strerror}', 'get the right to write there, or choose another '
                          'folder' + (' with TMPDIR' if what == 'temporary' else ''))
            continue
        found = f'{free / 1e9:.1f} GB free in {str(place)!r} ({what})'
        yield Finding('disk', 'ok', found) if free >= _LEAST_DISK else \
            Finding('disk', 'warning', found, _ROOM)
    shared = Path('/dev/shm')
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found = f'{free / 1e9:.1f} GB of shared memory'
        yield Finding('disk', 'ok', found) if free >= _LEAST_SHARED else \
            Finding('disk', 'warning', f'{found}, through which workers hand over their batches',
                    'start the container with --shm-size=2g, or set num_workers=0')


def limits() -> Iterator[Finding]:
    """How many files may be open, and how much memory is free."""
    from ..foreign_files import available_memory

    free = available_memory()
    yield Finding('memory', 'ok', f'{free / 1e9:.1f} GB free') if free >= 2e9 else \
        Finding('memory', 'warning', f'{free / 1e9:.1f} GB free', 'end what else is running')
    try:
        import resource
    except ImportError:  # there are none on Windows
        return
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < _LEAST_FILES:
        yield Finding('open files', 'warning', f'at most {files}, and workers and shards need more',
                      'ulimit -n 4096')


def reach_milvus(uri: str | None) -> Iterator[Finding]:
    """Whether Milvus can be reached: that of ``uri``, else whether it could be used at all."""
    if uri is None:
        found = [f'{name} {_version(name)}' for name in ('pymilvus', 'milvus-lite')
                 if _version(name)]
        yield Finding('Milvus', 'ok', f'{", ".join(found)}; --milvus URI tries a connection'
                      if found else 'not installed, and only wanted by MilvusIndex')
        return
    from ..index.milvus.connection import Connection, is_embedded

    if is_embedded(uri) and not Path(uri).exists():
        yield Finding('Milvus', 'ok', f'{uri!r} is a file that is not there yet')
        return
    connection = Connection(uri, timeout=5, retries=0)
    try:
        names = connection.call('list_collections')
        yield Finding('Milvus', 'ok', f'{connection.uri} answers; collections: {len(names)}')
    finally:
        connection.close()
