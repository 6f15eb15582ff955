"""A worker computes with one thread: several workers share the machine, and threads that wait for
each other spin, which takes most of the time where there are more of them than processors.
"""
import ast

import mmengine.config.config
import pytest
import torch

torch.set_num_threads(1)


def checked(text, **_):
    """In place of the engine's formatter, which takes longer than the toy runs whose configs it
    lays out, several times a run; the commands do without it too (see ``config/reading.py``)."""
    ast.parse(text)
    return text, True


mmengine.config.config.FormatCode = checked


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
