"""What a GPU finds is what the CPU finds: ``make gpu``, or ``pytest -m gpu``."""
import pytest
import torch

from retrieval.evaluation import evaluate
from retrieval.gallery import Gallery
from retrieval.index import ExactIndex, FaissIndex
from retrieval.ranking import PreparedGallery, topk
from retrieval.registry import MODELS, RERANKERS
from retrieval.structures import Neighbors, RetrievalDataSample

from .hooks.test_autocast import LOSSES, batch, retriever

pytestmark = pytest.mark.gpu
SIMILARITIES = ['cosine_similarity', 'inner_product', 'euclidean']


@pytest.fixture
def device():
    if not torch.cuda.is_available():
        pytest.skip('needs CUDA')
    return torch.device('cuda')


def agree(scores, rows, wanted, every, tolerance=1e-4):
    """The scores are those wanted, and each row has the score that stands beside it."""
    torch.testing.assert_close(scores.double().cpu(), wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(every.gather(1, rows.cpu()), wanted, rtol=tolerance, atol=tolerance)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


@pytest.mark.parametrize('precision', ['float32', 'half'])
@pytest.mark.parametrize('similarity', SIMILARITIES)
def test_exact_search(similarity, precision, device):
    queries, gallery = torch.randn(50, 48), torch.randn(20_000, 48) * 2 + 0.3
    left, right = queries.double(), gallery.double()
    if similarity == 'cosine_similarity':
        left, right = (torch.nn.functional.normalize(side, dim=1) for side in (left, right))
    every = -torch.cdist(left, right) if similarity == 'euclidean' else left @ right.T
    exclude, mask = torch.randint(0, 20_000, (50, 3)), torch.rand(20_000) > 0.2
    allowed = every.masked_fill(~mask, -torch.inf)
    allowed[torch.arange(50)[:, None], exclude] = -torch.inf
    found = topk(queries.to(device), PreparedGallery(gallery.to(device), similarity,
                                                     precision=precision),
                 100, exclude=exclude.to(device), mask=mask.to(device))
    assert found.scores.device.type == device.type
    agree(found.scores, found.indices, allowed.topk(100).values, every)


def test_evaluation(device):
    labels = torch.arange(400).repeat_interleave(5)
    embeddings = torch.randn(400, 32).repeat_interleave(5, dim=0) + torch.randn(2000, 32)
    metrics = ['Recall@1', 'Recall@10', 'mAP', 'MAP@R', 'R-Precision']
    wanted = evaluate(embeddings, labels, metrics=metrics)
    found = evaluate(embeddings.to(device), labels.to(device), metrics=metrics)
    assert found == pytest.approx(wanted, abs=0.05) and 20 < wanted['Recall@1'] < 99.9


def test_an_index_through_its_life(device):
    vectors, queries = torch.randn(3000, 32), torch.randn(40, 32)
    here, there = ExactIndex(), ExactIndex(device=str(device))
    for index in (here, there):
        index.add(vectors, range(3000))
        index.remove(range(0, 3000, 7))
        index.add(vectors[:7] + 1, range(5000, 5007))
    wanted, found = here.search(queries, 20), there.search(queries, 20)
    torch.testing.assert_close(found.scores.cpu(), wanted.scores, rtol=1e-4, atol=1e-4)
    assert (found.indices.cpu() == wanted.indices).float().mean() > 0.99


@pytest.mark.parametrize('factory', ['Flat', 'IVF16,Flat'])
def test_faiss(factory, device):
    faiss = pytest.importorskip('faiss')
    if not hasattr(faiss, 'StandardGpuResources'):
        pytest.skip("needs a faiss with CUDA: pip install 'retrieval[gpu]'")
    vectors, queries = torch.randn(3000, 32), torch.randn(40, 32)
    here, there = FaissIndex(factory), FaissIndex(factory, device='cuda')
    for index in (here, there):
        index.add(vectors, range(3000))
    wanted, found = here.search(queries, 10), there.search(queries, 10)
    assert (found.indices == wanted.indices).float().mean() > (0.99 if factory == 'Flat' else 0.8)


@pytest.mark.parametrize('reranker', [
    dict(type='KReciprocal', k1=8, k2=3), dict(type='AverageQueryExpansion'),
    dict(type='Diffusion')])
def test_reranking(reranker, device):
    rows, queries = torch.randn(60, 24).repeat_interleave(5, dim=0), torch.randn(30, 24)
    rows = rows + 0.3 * torch.randn_like(rows)
    step, results = RERANKERS.build(reranker), []
    for place in (torch.device('cpu'), device):
        found = topk(queries.to(place), PreparedGallery(rows.to(place)), 50)
        results.append(step(queries.to(place), Gallery(rows.to(place), list(range(300))),
                            Neighbors(found.scores, found.indices)))
    torch.testing.assert_close(results[1].scores.cpu(), results[0].scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('loss', list(LOSSES))
def test_training_and_search_of_a_retriever(loss, device):
    """Three steps from the same weights, and the gallery that they encode."""
    embeddings = []
    for place in (torch.device('cpu'), device):
        model = retriever(LOSSES[loss]).to(place)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            data = model.data_preprocessor(batch(generator), True)
            sum(model(**data, mode='loss').values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        images = torch.stack(batch(generator)['inputs'])
        with torch.no_grad():
            embeddings.append(model.eval().embed(images.to(place).float()).cpu())
    torch.testing.assert_close(embeddings[1], embeddings[0], rtol=1e-2, atol=1e-3)


def test_a_memory_of_batches_lies_on_the_device(device):
    head = MODELS.build(dict(type='retrieval.MetricHead', loss=dict(
        type='retrieval.CrossBatchMemory', loss=dict(type='PML.ContrastiveLoss'),
        embedding_size=16, memory_size=64))).to(device).train()
    for row in range(3):
        feats = torch.randn(8, 16, device=device, requires_grad=True)
        samples = [RetrievalDataSample(metainfo=dict(sample_idx=8 * row + place))
                   .set_gt_label(place // 2) for place in range(8)]
        losses = head.loss(feats, samples)
        sum(losses.values()).backward()
        assert feats.grad is not None and feats.grad.device.type == device.type
    assert all(buffer.device.type == device.type for buffer in head.buffers())
