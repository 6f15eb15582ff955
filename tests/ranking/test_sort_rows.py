import torch

from retrieval.ranking.topk import sort_rows


def test_it_is_the_stable_sort():
    torch.manual_seed(0)
    scores = torch.cat([torch.randn(20, 300), torch.randint(-3, 3, (20, 300)).float() / 2,
                        torch.tensor([[0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf] * 50])])
    values, columns = torch.sort(scores, dim=1, descending=True, stable=True)
    found, places = sort_rows(scores)
    assert torch.equal(found, values) and torch.equal(places, columns)
