"""A real Milvus on this machine, from the wheel `milvus`: standalone, with its log and its storage.

    python tests/index/milvus/server.py FOLDER [--if-available] [COMMAND …]

installs it into FOLDER, starts it on loopback, runs the command with its address in
RETRIEVAL_TEST_MILVUS (and FOLDER in RETRIEVAL_TEST_MILVUS_HOME), and stops it whatever happens.
"""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

VERSION = '2.3.5'
# Collections are loaded as soon as they can be, and a server that was killed is missed soon.
SETTINGS = {'queryCoord.checkInterval': 100, 'queryCoord.distPullInterval': 100,
            'common.session.ttl': 20}


def install(home: Path) -> Path:
    """The program, in an environment of its own, without requirements that a server has no use for.

    Raises:
        RuntimeError: the wheel cannot be had.
    """
    program = home / 'env' / 'bin' / 'milvus-server'
    if not program.exists():
        python = home / 'env' / 'bin' / 'python'
        subprocess.run([sys.executable, '-m', 'venv', str(home / 'env')], check=True)
        done = subprocess.run([str(python), '-m', 'pip', 'install', '--quiet', '--no-deps',
                               f'milvus=={VERSION}'], check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return program


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        return unused.getsockname()[1]


def is_free(port: int) -> bool:
    """True where a program can listen at a port that does not ask to share it."""
    with socket.socket() as tried:
        try:
            tried.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


class Server:
    """Milvus over a folder, which may be started again after it was killed.

    Args:
        home: where it is installed.
        data: its folder.
        settings: of its configuration, by dotted name.
    """

    def __init__(self, home: Path, data: Path, **settings: object) -> None:
        self.home, self.data, self.port = home, data, free_port()
        self.settings = {**SETTINGS, **settings}
        self._etcd = free_port(), free_port()  # by default the same for every server
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f'http://127.0.0.1:{self.port}'

    def start(self, patience: float = 120) -> None:
        """Start it and wait until it answers. Raises RuntimeError where it does not."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.home / 'bin').mkdir(exist_ok=True)  # is unpacked once, which takes half a minute
        if not (self.data / 'bin').exists():
            (self.data / 'bin').symlink_to(self.home / 'bin')
        client, peer = self._etcd
        etcd = self.data / 'etcd.yaml'
        etcd.write_text(f'''
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
''')
        # Where the connections of one that was killed still hold the port, `milvus-server` takes
        # the next without a word: it is waited for, a minute at most.
        end = time.monotonic() + patience
        while not is_free(self.port) and time.monotonic() < end:
            time.sleep(0.1)
        settings = {**self.settings, 'etcd.endpoints': f'127.0.0.1:{client}'}
        extra = [part for name, value in settings.items()
                 for part in ('--extra-config', f'{name}={value}')]
        with (self.data / 'server.log').open('ab') as log:
            self._process = subprocess.Popen(
                [str(install(self.home)), '--data', str(self.data), '--proxy-port', str(self.port),
                 *extra], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.data,
                start_new_session=True, env=os.environ | {'ETCD_CONFIG_PATH': str(etcd)})
        from grpc import RpcError  # pymilvus lets that of a time-out through
        from pymilvus import MilvusClient, MilvusException
        end = time.monotonic() + patience
        while self._process.poll() is None and time.monotonic() < end:
            try:
                # Looked for first: gRPC waits longer and longer before it tries an address again.
                socket.create_connection(('127.0.0.1', self.port), 5).close()
                with closing(MilvusClient(self.uri, timeout=5)) as connected:
                    connected.list_collections(timeout=5)
                return
            except (MilvusException, RpcError, OSError):
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f'Milvus did not start in {patience:.0f} s: see {self.data}.')

    def kill(self) -> None:
        """End it without a warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)
        self._end(signal.SIGKILL)  # what is left of it

    def _end(self, number: int) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


def main(arguments: list[str]) -> int:
    """Run a command beside a server; its status."""
    home, *command = arguments
    optional = '--if-available' in command[:1]
    folder = Path(home).absolute()
    try:
        install(folder)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f'Milvus {VERSION} cannot be installed here ({error}): its tests are left out.')
        return 0 if optional else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with TemporaryDirectory(prefix='data-', dir=folder, ignore_cleanup_errors=True) as data:
        server = Server(folder, Path(data))
        try:
            server.start()
            return subprocess.run(command[optional:], check=False, env=os.environ | {
                'RETRIEVAL_TEST_MILVUS': server.uri,
                'RETRIEVAL_TEST_MILVUS_HOME': str(folder)}).returncode
        finally:
            server.stop()


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
