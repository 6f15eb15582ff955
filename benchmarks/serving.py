"""The server over a gallery of 37,000 rows, against FastAPI around bare faiss, each in a process.

    python benchmarks/serving.py
    python benchmarks/serving.py --rows 5000 --requests 50

Prints the time from the start of the process to the first answer, the rate and latency of searches
by vector at 8 clients, and of searches by picture with and without batching. The peer parses a
vector with FastAPI, searches an ``IndexFlatIP`` of the same rows, and returns ids and scores.
"""
from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import verdict

WIDTH, CLIENTS, K = 128, 8, 10


def serve_ours(store: str, port: int, batch: int) -> None:
    """The server over a store, whose queries a small network encodes."""
    import uvicorn
    from torch import nn

    from retrieval.gallery import GalleryStore
    from retrieval.retrievers import ImageToImageRetriever
    from retrieval.server.app import create_app
    from retrieval.server.served import Served
    from retrieval.server.service import Service, Source

    encoder = dict(type='ImageEncoder', projection=WIDTH,
                   backbone=dict(type='TimmBackbone', model_name='resnet18'))
    pipeline: list[dict[str, Any]] = [
        dict(type='LoadImage'), dict(type='Resize', scale=(64, 64)),
        dict(type='PackInputs')]
    model: nn.Module = ImageToImageRetriever(
        encoder, GalleryStore.open(store).load(copy=True)).eval()
    service = Service(Served(model, pipeline), Source('benchmark', Path(f'{store}.serve')))
    service.encoder.batcher.most = batch
    uvicorn.run(create_app(service), port=port, log_level='error')


def serve_peer(store: str, port: int) -> None:
    """FastAPI around bare faiss."""
    import faiss
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    from retrieval.gallery import GalleryStore

    gallery = GalleryStore.open(store).load()
    index, ids = faiss.IndexFlatIP(WIDTH), list(gallery.ids)
    index.add(gallery.embeddings.numpy())
    app = FastAPI()

    class Search(BaseModel):
        vector: list[float]
        k: int = K

    @app.get('/readyz')
    def ready() -> dict[str, str]:
        return dict(status='ready')

    def search(wanted: Search) -> dict[str, Any]:
        scores, rows = index.search(np.array([wanted.vector], np.float32), wanted.k)
        return dict(results=[dict(id=ids[row], score=float(score))
                             for row, score in zip(rows[0], scores[0], strict=True)])
    search.__annotations__['wanted'] = Search
    app.post('/v1/search')(search)
    uvicorn.run(app, port=port, log_level='error')


class Server:
    """A process that serves, and how long it took to its first answer."""

    def __init__(self, kind: str, store: str, batch: int = 32) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        start = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, __file__, '--serve', kind, store,
                                         str(self.port), str(batch)])
        while True:
            try:
                if self.ask('GET', '/readyz')[0] == 200:
                    break
            except OSError:
                time.sleep(0.02)
        self.seconds = time.perf_counter() - start

    def ask(self, method: str, path: str, body: Any = None,
            connection: http.client.HTTPConnection | None = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        own = connection or http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        own.request(method, path, body, {'content-type': 'application/json'})
        answer = own.getresponse()
        return answer.status, answer.read()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def load(server: Server, path: str, bodies: list[list[Any]]) -> tuple[float, float, float]:
    """Requests a second, and the median and 95th percentile in ms, of a client for each list."""
    taken: list[float] = []

    def run(own: list[Any]) -> None:
        connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
        for body in own:
            start = time.perf_counter()
            status, answer = server.ask('POST', path, body, connection)
            taken.append(time.perf_counter() - start)
            if status != 200:
                raise SystemExit(answer.decode())
    threads = [threading.Thread(target=run, args=(own,)) for own in bodies]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(taken) / (time.perf_counter() - start)
    return rate, 1000 * float(np.median(taken)), 1000 * float(np.percentile(taken, 95))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=37_000)
    parser.add_argument('--requests', type=int, default=100, help='of each client')
    arguments = parser.parse_args()
    from PIL import Image

    from retrieval.gallery import Gallery, GalleryStore

    draw = np.random.default_rng(0)
    rows = draw.normal(size=(arguments.rows, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = [[draw.normal(size=WIDTH).tolist() for _ in range(arguments.requests)]
               for _ in range(CLIENTS)]
    pictures = []
    for _ in range(16):
        out = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(out, 'JPEG')
        pictures.append(out.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, 'rows.gallery')
        GalleryStore.create(store, Gallery(rows, [f'row {row}' for row in range(len(rows))]))
        ours = [[json.dumps(dict(queries=[dict(vector=vector)], k=K, stack=False))
                 for vector in own] for own in vectors]
        theirs = [[json.dumps(dict(vector=vector, k=K)) for vector in own] for own in vectors]
        embedded = [[pictures[(client + turn) % 16] for turn in range(arguments.requests)]
                    for client in range(CLIENTS)]

        with Server('ours', store) as server:
            print(f'from the start to the first answer: {server.seconds:.1f} s')
            load(server, '/v1/search', [own[:5] for own in ours])
            by_vector = load(server, '/v1/search', ours)
            print('by vector: {:.0f} a second, median {:.1f} ms, p95 {:.1f} ms'.format(*by_vector))
            load(server, '/v1/uploads', [embedded[0][:16]])
            names = [json.loads(server.ask('POST', '/v1/uploads', data)[1])['upload']
                     for data in pictures]
            uploads = [[json.dumps(dict(queries=[dict(upload=names[(client + turn) % 16])], k=K))
                        for turn in range(arguments.requests)] for client in range(CLIENTS)]
            together = load(server, '/v1/search', uploads)
        with Server('peer', store) as server:
            load(server, '/v1/search', [own[:5] for own in theirs])
            bare = load(server, '/v1/search', theirs)
            print('FastAPI around bare faiss: {:.0f} a second, median {:.1f} ms, p95 {:.1f} ms'
                  .format(*bare))
            size = f'{arguments.rows:,} rows x {WIDTH}, {CLIENTS} clients'
            verdict(f'searches by vector, {size}: rate', 'FastAPI around bare faiss',
                    by_vector[0] / bare[0], 0.8, least=True, ours=f'{by_vector[0]:.0f}/s',
                    theirs=f'{bare[0]:.0f}/s')
        with Server('ours', store, 1) as server:
            for data in pictures:
                server.ask('POST', '/v1/uploads', data)
            alone = load(server, '/v1/search', uploads)
        print(f'by picture: p95 {together[2]:.1f} ms')
        verdict(f'searches by picture, {size}: rate', 'one picture at a time',
                together[0] / alone[0], 2, least=True, ours=f'{together[0]:.0f}/s',
                theirs=f'{alone[0]:.0f}/s')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--serve']:
        kind, store, port, batch = sys.argv[2:]
        if kind == 'ours':
            serve_ours(store, int(port), int(batch))
        else:
            serve_peer(store, int(port))
    else:
        main()
