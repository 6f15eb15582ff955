"""Objects that pybullet renders; skipped where it is not installed."""
import numpy as np
import pytest

from retrieval.datasets.object_views import EDGE, ObjectRenderer, licence


def test_without_pybullet(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pybullet', None)
    with pytest.raises(ImportError, match='pip install pybullet'):
        ObjectRenderer()


def test_views_differ_and_are_always_the_same():
    pytest.importorskip('pybullet')
    renderer = ObjectRenderer()
    assert renderer.objects == list(range(1000))
    views = [np.asarray(view) for view in renderer.views(7, 3)]
    assert {view.shape for view in views} == {(EDGE, EDGE, 3)}
    assert all(np.abs(one.astype(int) - other).mean() > 5
               for one, other in zip(views, views[1:], strict=False))
    list(renderer.views(8, 1))
    again = [np.asarray(view) for view in ObjectRenderer().views(7, 3)]
    assert all(map(np.array_equal, views, again))
    assert 'zlib' in licence()
