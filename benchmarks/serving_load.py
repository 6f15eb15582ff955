"""Mixed load on a server, with a checker that knows what each answer must hold.

    python benchmarks/serving_load.py --minutes 10
    python benchmarks/serving_load.py --minutes 0.5 --kill-every 8 --clients 3

Searches, additions, replacements and removals of rows of a store, pictures, bodies that are broken,
and clients that hang up; every ``--kill-every`` seconds the server is ended by SIGKILL and started
again over the same store. Checked: a row whose addition was acknowledged is the first result of
its own vector until its removal was acknowledged, and never found after; scores are those of the
vectors that were sent, and fall; a body that is broken is refused; nothing is answered with 500.
What was asked for and not answered, because of a kill, may have happened or not. Prints the counts,
the memory over time, and ends with status 1 where an answer was wrong.
"""
from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, FIRST, MOST = 48, 300, 600  # of the vectors; rows at the start; rows of each client
BROKEN = [b'', b'{', b'{"k": 0}', b'{"queries": [{"row": -1}]}', b'{"queries": [{"vector": [1]}]}',
          b'[]', b'\xff\xfe', b'{"queries": [{"id": "no such row"}]}', b'{"sort": "size"}']
PICTURES = [b'', b'\x89PNG\r\n\x1a\n', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'GIF89a']


def serve(store: str, port: int) -> None:
    """The server over a store, whose encoder is the mean colours of a picture's cells."""
    import uvicorn
    from torch import nn

    from retrieval.gallery import GalleryStore
    from retrieval.retrievers import ImageToImageRetriever
    from retrieval.server.app import create_app
    from retrieval.server.follow import follow_store
    from retrieval.server.served import Served
    from retrieval.server.service import Service, Source

    opened = GalleryStore.open(store)
    model: nn.Module = ImageToImageRetriever(
        nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), opened.load(copy=True)).eval()
    pipeline: list[dict[str, Any]] = [
        dict(type='LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    service = Service(Served(model, pipeline, store=opened), Source('load', Path(f'{store}.serve')))
    follower = follow_store(service)
    uvicorn.run(create_app(service, on_start=follower.start), port=port, log_level='error')


class Server:
    """The process that serves, through its ends and starts."""

    def __init__(self, store: str) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.port = free.getsockname()[1]
        self.store, self.kills, self.up = store, 0, threading.Event()
        self.log = open(f'{store}.log', 'wb')  # noqa: SIM115  (until the end)
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        self.process = subprocess.Popen([sys.executable, __file__, '--serve', self.store,
                                         str(self.port)], stderr=self.log)
        end = time.monotonic() + 600  # a busy machine takes long
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask('GET', '/readyz')[0] == 200:
                    self.up.set()
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f'the server did not start; see {self.store}.log')

    def kill(self) -> None:
        """End the process by SIGKILL, and start another."""
        self.up.clear()
        self.kills += 1
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.start()

    def ask(self, method: str, path: str, body: Any = None,
            kind: str = 'application/json') -> tuple[int, bytes]:
        """Status and body of an answer. Raises OSError or HTTPException where there is none."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        try:
            connection.request(method, path, body, {'content-type': kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> float:
        """The resident megabytes of the process."""
        try:
            text = Path(f'/proc/{self.process.pid}/status').read_text()
            return int(text.split('VmRSS:')[1].split()[0]) / 1024
        except (OSError, IndexError):
            return float('nan')


class Client(threading.Thread):
    """One client with rows of its own, which it knows.

    Args:
        server: what it asks.
        number: its own.
        stop: is set at the end.
        counts: of what was asked, and what was wrong.
    """

    def __init__(self, server: Server, number: int, stop: threading.Event, counts: Counter[str],
                 wrong: list[str]) -> None:
        super().__init__(daemon=True)
        self.server, self.number, self.stop = server, number, stop
        self.counts, self.wrong = counts, wrong
        self.draw, self.choose = np.random.default_rng(number), random.Random(number)  # noqa: S311
        self.held: dict[str, np.ndarray] = {}     # acknowledged
        self.unsure: dict[str, list[Any]] = {}    # asked for, not answered: what it may be
        self.gone: list[str] = []
        self.next = 0

    def run(self) -> None:
        """Ask until the end."""
        actions = [self.search] * 8 + [self.add] * 3 + [self.replace, self.remove, self.check_gone,
                                                        self.picture, self.broken, self.hang_up]
        while not self.stop.is_set():
            action = self.choose.choice(actions)
            try:
                self.server.up.wait(130)
                action()
                self.counts[action.__name__] += 1
            except (OSError, http.client.HTTPException):
                self.counts['cut off'] += 1
                time.sleep(0.05)
            except Exception as error:
                self.wrong.append(f'{action.__name__}: {type(error).__name__}: {error}')
            time.sleep(0.002)

    def fail(self, said: str) -> None:
        """Note a wrong answer."""
        self.wrong.append(f'client {self.number}: {said}')

    def ask(self, method: str, path: str, body: Any) -> Any:
        """The answer's content; None where the server was busy."""
        status, data = self.server.ask(method, path, json.dumps(body))
        if status == 503:
            self.counts['busy'] += 1
            return None
        if status != 200:
            self.fail(f'{method} {path}: {status} {data[:200]!r}')
            return None
        return json.loads(data)

    def vector(self) -> np.ndarray:
        """A random direction."""
        found = self.draw.normal(size=WIDTH)
        return found / np.linalg.norm(found)

    def write(self, method: str, body: Any, ids: list[str], after: list[Any]) -> None:
        """Change rows; what they are until the answer comes is not known."""
        before = [self.held.pop(name, None) for name in ids]
        for name, old, new in zip(ids, before, after, strict=True):
            self.unsure[name] = [*self.unsure.get(name, [old]), new]
        answer = self.ask(method, '/v1/items', body)
        if answer is None:
            return
        for name, new in zip(ids, after, strict=True):
            del self.unsure[name]
            if new is None:
                self.gone.append(name)
            else:
                self.held[name] = new

    def add(self) -> None:
        """Add some rows."""
        if len(self.held) > MOST:
            self.remove()
            return
        ids = [f'c{self.number}-{self.next + place}' for place in range(self.choose.randint(1, 8))]
        self.next += len(ids)
        vectors = [self.vector() for _ in ids]
        self.write('POST', dict(items=[dict(id=name, vector=vector.tolist()) for name, vector in
                                       zip(ids, vectors, strict=True)]), ids, vectors)

    def replace(self) -> None:
        """Replace a row, sometimes one of which it is not known what it is."""
        names = [*self.held, *self.unsure]
        if names:
            name, vector = self.choose.choice(names), self.vector()
            self.write('POST', dict(replace=True, items=[dict(id=name, vector=vector.tolist())]),
                       [name], [vector])

    def remove(self) -> None:
        """Remove a few rows."""
        names = self.choose.sample(list(self.held), min(3, len(self.held)))
        if names:
            self.write('DELETE', dict(ids=names), names, [None] * len(names))

    def search(self) -> None:
        """A row that is held is the first result of its own vector, with its score."""
        if not self.held:
            return
        name = self.choose.choice(list(self.held))
        vector = self.held[name] + 0.02 * self.vector()
        found = self.ask('POST', '/v1/search', dict(
            queries=[dict(vector=vector.tolist())], k=10, stack=False))
        if found is None:
            return
        hits = found['results']
        scores = [hit['score'] for hit in hits]
        if len(hits) != 10 or scores != sorted(scores, reverse=True):
            self.fail(f'{len(hits)} results, scores {scores}')
        if not hits or hits[0]['id'] != name:
            self.fail(f'{name} was acknowledged and not found; first was {hits[:1]}')
        for hit in hits:
            own = self.held.get(hit['id'])
            if own is not None:
                wanted = float(own @ vector / np.linalg.norm(vector) / np.linalg.norm(own))
                if abs(wanted - hit['score']) > 1e-4:
                    self.fail(f'{hit["id"]} has the score {hit["score"]}, not {wanted}')
            elif hit['id'] in self.gone:
                self.fail(f'{hit["id"]} was removed, and found')

    def check_gone(self) -> None:
        """A row that was removed is not there."""
        if self.gone:
            name = self.choose.choice(self.gone[-200:])
            status, _ = self.server.ask('POST', '/v1/search', json.dumps(
                dict(queries=[dict(id=name)])))
            if status != 404:
                self.fail(f'{name} was removed, and is answered with {status}')

    def picture(self) -> None:
        """A picture is encoded to what it is: the colours of its cells."""
        from PIL import Image

        cells = self.draw.integers(0, 255, (4, 4, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(np.kron(cells, np.ones((8, 8, 1), np.uint8))).save(out, 'PNG')
        status, data = self.server.ask('POST', '/v1/embed', out.getvalue(),
                                       'application/octet-stream')
        if status == 503:
            self.counts['busy'] += 1
        elif status != 200:
            self.fail(f'picture: {status} {data[:200]!r}')
        elif not np.allclose(json.loads(data)['embedding'], cells.transpose(2, 0, 1).ravel(),
                             atol=1):
            self.fail('a picture was encoded to something else')

    def broken(self) -> None:
        """What is broken is refused."""
        body = self.choose.choice(BROKEN)
        path, kind = '/v1/search', 'application/json'
        if self.choose.random() < 0.5:
            body, path = self.choose.choice(PICTURES), '/v1/uploads'
            kind = 'application/octet-stream'
        status, _ = self.server.ask('POST', path, body, kind)
        if body == b'' and path == '/v1/search':
            if status != 200:  # it lists the rows
                self.fail(f'an empty search: {status}')
        elif status not in (404, 422):
            self.fail(f'{body!r} to {path}: {status}')

    def hang_up(self) -> None:
        """Leave in the middle: of the headers, of the body, or before the answer."""
        where = self.choose.randrange(3)
        body = json.dumps(dict(queries=[dict(vector=[1.0] * WIDTH)])).encode()
        head = (b'POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: '
                + str(len(body)).encode() + b'\r\n')
        text = [head, head + b'\r\n' + body[:20], head + b'\r\n' + body][where]
        with socket.create_connection(('127.0.0.1', self.server.port), timeout=10) as one:
            one.sendall(text)

    def settle(self) -> None:
        """At the end: what is held is there with its vector, what is gone is not."""
        for name, vector in self.held.items():
            status, data = self.server.ask('POST', '/v1/embed', json.dumps(dict(id=name)))
            if status != 200:
                self.fail(f'{name} was acknowledged and is lost: {status}')
                continue
            found = np.array(json.loads(data)['embedding'])
            if abs(found @ vector / np.linalg.norm(found) - 1) > 1e-4:
                self.fail(f'{name} holds another vector than was acknowledged')
        for name, states in self.unsure.items():
            status, data = self.server.ask('POST', '/v1/embed', json.dumps(dict(id=name)))
            if status == 200:
                found = np.array(json.loads(data)['embedding'])
                possible = [one for one in states if one is not None]
                if not any(abs(found @ one / np.linalg.norm(found) - 1) < 1e-4
                           for one in possible):
                    self.fail(f'{name} holds what nobody sent')
            elif all(one is not None for one in states):
                self.fail(f'{name} was acknowledged and is lost: {status}')
        for name in self.gone:
            if name not in self.held and name not in self.unsure and self.server.ask(
                    'POST', '/v1/embed', json.dumps(dict(id=name)))[0] != 404:
                self.fail(f'{name} was removed, and is there')


def load(minutes: float, clients: int, kill_every: float) -> list[str]:
    """Run, print, and return what was wrong."""
    from retrieval.gallery import Gallery, GalleryStore

    draw = np.random.default_rng(99)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, 'rows.gallery')
        rows = draw.normal(size=(FIRST, WIDTH)).astype(np.float32)
        GalleryStore.create(store, Gallery(rows, [f'first {row}' for row in range(FIRST)]))
        server, stop = Server(store), threading.Event()
        asking = [Client(server, number, stop, counts, wrong) for number in range(clients)]
        begin = time.monotonic()
        for one in asking:
            one.start()
        killed = told = begin
        every = max(5.0, 60 * minutes / 20)
        while time.monotonic() - begin < 60 * minutes and len(wrong) < 20:
            time.sleep(0.2)
            if kill_every and time.monotonic() - killed > kill_every:
                server.kill()
                killed = time.monotonic()
            if time.monotonic() - told > every:
                told = time.monotonic()
                held = sum(len(one.held) for one in asking)
                print(f'{told - begin:5.0f} s: {sum(counts.values()):,} requests, {held:,} rows '
                      f'held, {server.memory():.0f} MB, {told - killed:.0f} s after a start, '
                      f'{server.kills} kills, {len(wrong)} wrong', flush=True)
        stop.set()
        for one in asking:
            one.join(70)
        server.kill()
        for one in asking:
            one.settle()
        unsure = sum(len(one.unsure) for one in asking)
        server.process.terminate()
        server.process.wait()
        server.log.close()
        failures = Path(f'{store}.log').read_text(errors='replace').count('Traceback')
        if failures:
            wrong.append(f'{failures} tracebacks in the log of the server')
            print(Path(f'{store}.log').read_text(errors='replace')[-3000:])
        print(', '.join(f'{name}: {count:,}' for name, count in sorted(counts.items())))
        print(f'{server.kills} kills; {sum(len(one.held) for one in asking):,} rows held and found '
              f'at the end, {sum(len(one.gone) for one in asking):,} removed and gone, {unsure} of '
              f'which the answer was cut off; {len(wrong)} wrong')
    return wrong


def main() -> None:
    """Run the load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument('--clients', type=int, default=6)
    parser.add_argument('--kill-every', type=float, default=60, help='seconds; 0 for never')
    arguments = parser.parse_args()
    wrong = load(arguments.minutes, arguments.clients, arguments.kill_every)
    print('\n'.join(wrong[:20]))
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--serve']:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
