from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from retrieval.evaluation import EmbeddingSet, EvaluationTask, evaluate


@pytest.mark.parametrize('k', [1, 50, 80, 95, 100])
def test_the_components_of_scikit_learn(k):
    numbers = np.random.default_rng(0)
    rows = numbers.normal(size=(90, 12)) * np.linspace(3, .1, 12) + 5
    shares = np.cumsum(PCA().fit(rows).explained_variance_ratio_)
    wanted = (int((shares < k / 100 - 1e-9).sum()) + 1) / 12
    found = evaluate(rows[:30], np.arange(30) % 5, rows[30:], np.arange(60) % 5,
                     metrics=[f'PCF@{k}'])
    assert found[f'PCF@{k}'] == pytest.approx(100 * wanted)


def test_collapsed_embeddings():
    found = evaluate(torch.ones(6, 4), [0, 0, 1, 1, 2, 2], metrics=['PCF@90', 'Recall@1'])
    assert found['PCF@90'] == 0
    with pytest.raises(ValueError, match='at most 100'):
        evaluate(torch.ones(6, 4), [0] * 6, metrics='PCF@101')
    assert EvaluationTask(EmbeddingSet(torch.ones(1, 2))).shape == (1, 1)
