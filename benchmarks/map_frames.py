"""How smoothly the page's map of 50,000 pictures moves, in headless Chromium without a GPU.

    pip install playwright && apt-get install chromium
    python benchmarks/map_frames.py [--rows 50000]

The peer is the same page at rest: what a frame takes there, the browser takes without any map.
"""
from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

FRAMES = '''(kind) => new Promise((done) => {
  const canvas = document.querySelector('canvas');
  const box = canvas.getBoundingClientRect();
  const times = [];
  let last = performance.now();
  const step = () => {
    const now = performance.now();
    times.push(now - last);
    last = now;
    const at = times.length;
    if (at > 200) { done(times.slice(1)); return; }
    const place = {clientX: box.left + 400 + 200 * Math.sin(at / 8),
      clientY: box.top + 250 + 120 * Math.cos(at / 11), bubbles: true, cancelable: true};
    if (kind === 'zoom') {
      canvas.dispatchEvent(new WheelEvent('wheel', {...place, deltaY: at % 40 < 20 ? -30 : 30}));
    } else if (kind !== 'rest') {
      canvas.dispatchEvent(new PointerEvent('pointermove', {...place, pointerId: 1}));
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})'''


@contextmanager
def serving(rows: int) -> Iterator[str]:
    """The address of so many rows of 200 kinds, without pictures."""
    import uvicorn

    from retrieval.commands.serve import listen
    from retrieval.gallery import Gallery
    from retrieval.retrievers import ImageToImageRetriever
    from retrieval.server.app import create_app
    from retrieval.server.served import Served
    from retrieval.server.service import Service, Source

    chance = np.random.default_rng(0)
    kinds = chance.integers(0, 200, rows)
    vectors = chance.normal(size=(200, 64))[kinds] + 0.9 * chance.normal(size=(rows, 64))
    gallery = Gallery(vectors.astype(np.float32), [f'{row}' for row in range(rows)],
                      labels=[f'kind {kind}' for kind in kinds])
    model = ImageToImageRetriever(torch.nn.Flatten(), gallery).eval()
    with tempfile.TemporaryDirectory() as folder, listen('127.0.0.1', 0, 0) as listening:
        service = Service(Served(model, [dict(type='retrieval.PackInputs')]),
                          Source('map', Path(folder)))
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_level='warning'))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f'http://127.0.0.1:{listening.getsockname()[1]}/'
        finally:
            server.should_exit = True
            thread.join(20)


def measure(page: Any) -> None:
    """Print the frames of each kind of movement."""
    frame = page.locator('canvas').bounding_box()

    def report(name: str, kind: str) -> None:
        times = np.array(page.evaluate(FRAMES, kind))
        print(f'{name:8} median {np.median(times):5.1f} ms, 95 % within '
              f'{np.quantile(times, 0.95):5.1f} ms, longest {times.max():5.1f} ms')
    report('at rest', 'rest')
    report('zoom', 'zoom')
    for name, tool in (('pan', 'Move'), ('lasso', 'Lasso')):
        page.get_by_role('button', name=tool, exact=True).click()
        page.mouse.move(frame['x'] + 400, frame['y'] + 250)
        page.mouse.down()
        report(name, 'move')
        start = time.perf_counter()
        page.mouse.up()
    page.wait_for_selector('text=/Show .* pictures/')
    print(f'lasso, until its pictures are counted: {time.perf_counter() - start:.2f} s')


def main() -> None:
    """Serve, make the map, and move it."""
    import shutil

    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=50_000)
    with serving(parser.parse_args().rows) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'),
                                             args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=1200, height=800))
        start = time.perf_counter()
        page.goto(f'{address}#view=map')
        page.wait_for_selector('.legend', timeout=600_000)
        print(f'the map is there after {time.perf_counter() - start:.1f} s')
        measure(page)
        browser.close()


if __name__ == '__main__':
    main()
