"""Plain loops that the tests of inference share."""
import torch


def loop(query, k, reference, first=None):
    """Nearest rows by squared distance in float64; query i leaves out row first + i."""
    distances, rows = [], []
    for i, vector in enumerate(query.double()):
        squares = ((reference.double() - vector) ** 2).sum(1).tolist()
        order = sorted((d, row) for row, d in enumerate(squares)
                       if first is None or row != first + i)[:k]
        distances.append([d for d, _ in order])
        rows.append([row for _, row in order])
    return torch.tensor(distances, dtype=torch.float64), torch.tensor(rows)
