"""Everything that wants a GPU: the tests, then the comparisons, in less than nine minutes.

    python benchmarks/gpu.py                  the tests and every case
    python benchmarks/gpu.py exact amp        cases alone

``exact``: top-10 and 100 of 10,000 x 1,000,000 x 256 on the card in half precision with float32
scores, over the card's own rate for the product in bfloat16, and over a search in float32.
``flat``: the same of ``FaissIndex('Flat', device='cuda')`` against faiss's own GpuIndexFlat, where
faiss has its part for CUDA.
``amp``: a step of ResNet-50 (224 px, batch 64) in float16, with gradient scaling, through
``AmpOptimWrapper`` and the retriever, over the same by torch alone; and over float32.
``step``, ``features``: as ``benchmarks/training.py`` says, on the card.
``ddp``: the step of a process group of one, by NCCL, over the step without a group.

Without a GPU a line says so. Every case has its limit of time; what outlasts it is told and ended.
"""
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import verdict
from torch import Tensor, nn

import retrieval.registry  # noqa: F401  (lets torchvision's import pass beside a CPU torch)

HERE = Path(__file__).parent
SECONDS = {'tests': 150, 'exact': 60, 'flat': 60, 'amp': 90, 'step': 60, 'features': 45, 'ddp': 60}
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of a piece of work, also of the card's part; the first does not count."""
    taken = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def wait() -> None:
    """Until the card has done all."""
    if DEVICE.type == 'cuda':
        torch.cuda.synchronize()


def vectors(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Queries and gallery, of length 1, on the card."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    rows, asked = int(1_000_000 * options.scale), int(10_000 * options.scale)
    return tuple(nn.functional.normalize(torch.randn(  # type: ignore[return-value]
        count, 256, generator=generator, device=DEVICE), dim=1) for count in (asked, rows))


def exact(options: argparse.Namespace) -> bool:
    """Exact search in half precision over the product alone."""
    from retrieval.ranking import PreparedGallery, topk

    queries, gallery = vectors(options)
    half = PreparedGallery(gallery, 'inner_product', precision='half')
    full = PreparedGallery(gallery, 'inner_product')
    left, right, block = queries.bfloat16(), gallery.bfloat16(), 1024

    def product() -> None:
        for start in range(0, len(left), block):
            left[start:start + block] @ right.T

    bare = seconds(product)
    good = True
    for k in (10, 100):
        taken = seconds(lambda k=k: topk(queries, half, k))  # type: ignore[misc]
        float32 = seconds(lambda k=k: topk(queries, full, k), 2)  # type: ignore[misc]
        same = float((topk(queries, half, k).indices == topk(queries, full, k).indices)
                     .float().mean())
        work = (f'top-{k} of {len(queries):,} x {len(gallery):,} x 256 on a card, half precision, '
                'time')
        print(f'\nexact: top-{k}: {same:.4%} of the rows as in float32')
        good &= same > 0.999
        verdict(work, 'the product in bfloat16', taken / bare, ours=f'{1e3 * taken:.1f} ms',
                theirs=f'{1e3 * bare:.1f} ms')
        good &= verdict(work, 'our float32', taken / float32, 1.0, ours=f'{1e3 * taken:.1f} ms',
                        theirs=f'{1e3 * float32:.1f} ms')
    return good


def flat(options: argparse.Namespace) -> bool:
    """FaissIndex on the card over bare faiss."""
    import faiss

    from retrieval.index import FaissIndex

    if not hasattr(faiss, 'StandardGpuResources'):
        print("flat: this faiss has no part for CUDA (pip install 'retrieval[gpu]'); left out")
        return True
    queries, gallery = (part.cpu() for part in vectors(options))
    index = FaissIndex('Flat', 'inner_product', device='cuda')
    index.add(gallery, range(len(gallery)))
    bare = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 256)
    bare.add(gallery.numpy())
    ours = seconds(lambda: index.search(queries, 10))
    theirs = seconds(lambda: bare.search(queries.numpy(), 10))
    return verdict(f"FaissIndex('Flat') on a card, top-10 of {len(queries):,} x {len(gallery):,} "
                   'x 256, time', 'GpuIndexFlatIP', ours / theirs, 1.1,
                   ours=f'{1e3 * ours:.1f} ms', theirs=f'{1e3 * theirs:.1f} ms')


def retriever(options: argparse.Namespace) -> Any:
    """ResNet-50 with ArcFace over 100 classes, on the card."""
    from retrieval.registry import MODELS

    name = 'resnet50' if options.scale == 1 else 'resnet10t'
    return MODELS.build(dict(
        type='retrieval.ImageToImageRetriever', prototype=torch.zeros(1, 128),
        image_encoder=dict(type='retrieval.ImageEncoder', projection=128, backbone=dict(
            type='TimmBackbone', model_name=name), pooling=dict(type='GlobalAveragePooling')),
        head=dict(type='retrieval.MetricHead', loss=dict(
            type='PML.ArcFaceLoss', num_classes=100, embedding_size=128)))).to(DEVICE).train()


def pictures(options: argparse.Namespace) -> dict[str, Any]:
    """A batch as the data preprocessor gives it."""
    from retrieval.structures import RetrievalDataSample

    count, side = (64, 224) if options.scale == 1 else (8, 64)
    generator = torch.Generator(DEVICE).manual_seed(0)
    samples = [RetrievalDataSample().set_gt_label(row % 100) for row in range(count)]
    return dict(inputs=torch.randn(count, 3, side, side, device=DEVICE, generator=generator),
                data_samples=samples)


def amp(options: argparse.Namespace) -> bool:
    """A step in float16."""
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    batch = pictures(options)
    labels = torch.tensor([int(sample.gt_label) for sample in batch['data_samples']], device=DEVICE)

    def ours(wrapper_type: Any, **more: Any) -> Callable[[], None]:
        model = retriever(options)
        wrapper = wrapper_type(optimizer=torch.optim.SGD(model.parameters(), 1e-3), **more)

        def step() -> None:
            with wrapper.optim_context(model):
                losses = model(**batch, mode='loss')
            wrapper.update_params(sum(losses.values()))
        return step

    def bare() -> Callable[[], None]:
        model = retriever(options)
        encoder, loss = model.image_encoder, next(
            module for module in model.head.modules() if type(module).__name__ == 'ArcFaceLoss')
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        scaler = torch.amp.GradScaler(DEVICE.type)

        def step() -> None:
            with torch.autocast(DEVICE.type, torch.float16):
                feats = encoder(batch['inputs'])
            value = loss(feats.float(), labels)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return step

    mixed = ours(AmpOptimWrapper, loss_scale='dynamic') if DEVICE.type == 'cuda' else ours(
        OptimWrapper)
    taken = {name: seconds(work, options.steps) for name, work in
             (('ours', mixed), ('bare', bare()), ('float32', ours(OptimWrapper)))}
    told = {name: f'{1e3 * value:.1f} ms' for name, value in taken.items()}
    work = 'a step of ResNet-50 (224 px, batch 64, ArcFace) in float16, time'
    verdict(work, 'our float32', taken['ours'] / taken['float32'], ours=told['ours'],
            theirs=told['float32'])
    return verdict(work, 'torch.amp by hand', taken['ours'] / taken['bare'], 1.05,
                   ours=told['ours'], theirs=told['bare'])


def ddp(options: argparse.Namespace) -> bool:
    """A process group of one."""
    import torch.distributed as dist
    from mmengine.model import MMDistributedDataParallel

    batch = pictures(options)

    def step_of(model: Any) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)

        def step() -> None:
            sum(model(**batch, mode='loss').values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return step

    alone = seconds(step_of(retriever(options)), options.steps)
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29511')
    dist.init_process_group('nccl' if DEVICE.type == 'cuda' else 'gloo', rank=0, world_size=1)
    try:
        ids = [0] if DEVICE.type == 'cuda' else None
        taken = seconds(step_of(MMDistributedDataParallel(retriever(options), device_ids=ids)),
                        options.steps)
    finally:
        dist.destroy_process_group()
    return verdict('a step of ResNet-50 (224 px, batch 64, ArcFace) in a group of one, time',
                   'no group', taken / alone, 1.1, ours=f'{1e3 * taken:.1f} ms',
                   theirs=f'{1e3 * alone:.1f} ms')


CASES: dict[str, Callable[[argparse.Namespace], bool]] = {
    'exact': exact, 'flat': flat, 'amp': amp, 'ddp': ddp}
SCRIPTS = {'tests': ['-m', 'pytest', '-q', '-m', 'gpu', str(HERE.parent / 'tests')],
           'step': [str(HERE / 'training.py'), 'step'],
           'features': [str(HERE / 'training.py'), 'features']}


def run_all(names: list[str]) -> bool:
    """Each in a process of its own, within its time; False where one was missed."""
    print(f'torch {torch.__version__} on {torch.cuda.get_device_name()}', flush=True)
    good = True
    for name in names:
        words = SCRIPTS.get(name, [__file__, '--case', name])
        print(f'== {name}', flush=True)
        try:
            good &= subprocess.run([sys.executable, *words], timeout=SECONDS[name],
                                   cwd=HERE.parent).returncode == 0
        except subprocess.TimeoutExpired:
            print(f'{name}: not done after {SECONDS[name]} s')
            good = False
    return good


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cases', nargs='*', metavar='CASE', help=f'out of {", ".join(SECONDS)}')
    parser.add_argument('--case', choices=CASES, help='this one, in this process, also on a CPU')
    parser.add_argument('--scale', type=float, default=1.0, help='of the sizes; below 1 to try it')
    parser.add_argument('--steps', type=int, default=20, help='that are timed, of training')
    options = parser.parse_args()
    unknown = set(options.cases) - set(SECONDS)
    if unknown:
        parser.error(f'unknown case {sorted(unknown)[0]!r}; there are {", ".join(SECONDS)}')
    if options.case:
        sys.exit(0 if CASES[options.case](options) else 1)
    if not torch.cuda.is_available():
        print('There is no GPU here: nothing was run.')
        return
    sys.exit(0 if run_all(options.cases or list(SECONDS)) else 1)


if __name__ == '__main__':
    main()
