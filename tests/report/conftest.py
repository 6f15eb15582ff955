"""An evaluation with known faults: a wrong label, a hub, two classes that lie together."""
import numpy as np
import pytest
import torch

from retrieval.evaluation import EmbeddingSet, EvaluationTask

NAMES = ['cat', 'dog', 'owl', 'fox', '<b>&"quoted"</b>']


@pytest.fixture(autouse=True, scope='session')
def _no_tsne():
    """The map by principal components, which takes no seconds; it has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('retrieval.report.summary.two_dimensions', lambda rows: rows[:, :2])
        yield


def scattered(count=60, classes=5, seed=0, spread=0.6):
    numbers = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = numbers.normal(size=(classes, 8))
    rows = centres[labels] + spread * numbers.normal(size=(count, 8))
    return rows.astype(np.float32), labels


@pytest.fixture(scope='session')
def task():
    rows, labels = scattered()
    return EvaluationTask(EmbeddingSet(rows, labels, [f'p/{row}.png' for row in range(60)],
                                       label_names=NAMES))


@pytest.fixture(scope='session')
def apart():
    """Queries and a gallery, rows by camera, half of the pictures on both sides."""
    rows, labels = scattered(90, seed=1, spread=1.2)
    cameras = np.random.default_rng(2).integers(0, 3, 90)
    ids = [f'p/{row}.png' for row in range(90)]
    queries, gallery = slice(0, 40), slice(20, 90)
    return EvaluationTask(
        *(EmbeddingSet(rows[part], labels[part], ids[part], dict(camera=cameras[part]))
          for part in (queries, gallery)), exclude_same=('camera',))


@pytest.fixture(scope='session')
def listed():
    """Relevant rows by lists, junk too; no labels."""
    rows, _ = scattered(50, seed=3)
    numbers = np.random.default_rng(4)
    relevant = [sorted(numbers.choice(30, size, replace=False).tolist())
                for size in numbers.integers(0, 6, 20)]
    junk = [[int(numbers.integers(30))] for _ in range(20)]
    return EvaluationTask(EmbeddingSet(rows[:20]), EmbeddingSet(rows[20:]), relevant, junk)


def ranking(task, query):
    """The rows that a query ranks, best first, their scores and which are relevant: plainly."""
    own = task.queries
    theirs = task.gallery or own
    vectors = [torch.nn.functional.normalize(torch.as_tensor(side.embeddings)).double()
               for side in (own, theirs)]
    found = []
    for row in range(len(vectors[1])):
        if task.gallery is None and row == query:
            continue
        if task.gallery is not None and own.ids is not None and own.ids[query] == theirs.ids[row]:
            continue
        if task.relevance is not None:
            relevant = row in task.relevance[query]
            if row in task.junk[query]:
                continue
        else:
            relevant = own.labels[query] == theirs.labels[row]
            if relevant and any(own.metadata[name][query] == theirs.metadata[name][row]
                                for name in task.exclude_same):
                continue
        found.append((-float(vectors[0][query] @ vectors[1][row]), row, bool(relevant)))
    return [(row, -score, relevant) for score, row, relevant in sorted(found)]
