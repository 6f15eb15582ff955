import pytest

from .running import close_all


@pytest.fixture(autouse=True)
def _close_workers():
    yield
    close_all()
