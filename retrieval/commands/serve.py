"""Serve a folder, gallery or store: a page to look at it, and an API over the same search."""
from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import reports_errors
from .folders import add_folder_options, check_exists, config_dataset, folder_encoder, is_folder


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser('serve', description=__doc__)
    arguments.add_argument('gallery', help='a folder of images, which is encoded and followed; a '
                           'gallery file or store; a bundle with a gallery; or a config, whose '
                           'gallery is served')
    arguments.add_argument('weights', nargs='?', metavar='CHECKPOINT',
                           help="the checkpoint, where the source is a config")
    arguments.add_argument('--host', default='127.0.0.1',
                           help='where to listen (default: 127.0.0.1, which only this machine '
                           'reaches; any other asks for --token)')
    arguments.add_argument('--port', type=int, default=8000,
                           help='the port; 0 for a free one (default: 8000, or a free one where '
                           'that is taken)')
    arguments.add_argument('--token', default=os.environ.get('RETRIEVAL_TOKEN'),
                           help='a secret that every request must know (default: the environment '
                           'variable RETRIEVAL_TOKEN)')
    arguments.add_argument('--read-token', help='a secret that is enough for searching')
    arguments.add_argument('--read-only', action='store_true',
                           help='nothing that is served can be changed')
    arguments.add_argument('--show-paths', action='store_true',
                           help='show where the files are on this machine')
    arguments.add_argument('--calibration', metavar='FILE.json',
                           help='a calibration: results get a probability, and a line below which '
                           'nothing probably matches')
    arguments.add_argument('--device', help='where the model goes, such as cuda:0')
    arguments.add_argument('--no-browser', action='store_true', help='do not open the browser')
    arguments.add_argument('--ignore-fingerprint', action='store_true',
                           help='serve a gallery that another model or pipeline made')
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    check_exists(arguments.gallery)
    try:
        import uvicorn

        from ..server.app import create_app
    except ImportError as error:
        raise ImportError(f"{error}. Serving wants: pip install 'retrieval[web]'.") from error
    if arguments.read_token and not arguments.token:
        raise ValueError('--read-token is for reading beside --token: give both.')
    if arguments.host not in ('localhost', '127.0.0.1', '::1') and not arguments.token:
        raise ValueError(f'--host {arguments.host} lets other machines in: give --token too, a '
                         'secret that they must know.')
    listening = listen(arguments.host, arguments.port, parser().get_default('port'))
    with listening:
        service, follower = open_service(arguments)
        port = listening.getsockname()[1]
        name = f'[{arguments.host}]' if ':' in arguments.host else arguments.host
        url = f'http://{"127.0.0.1" if arguments.host == "0.0.0.0" else name}:{port}/'  # noqa: S104

        def begin() -> None:
            if follower is not None:
                follower.start()
            print(f'Serving {service.source.name} at {url} (Ctrl-C ends it)', flush=True)
            if not arguments.no_browser and sys.stdout.isatty():
                import webbrowser
                webbrowser.open(url + (f'?token={arguments.token}' if arguments.token else ''))

        app = create_app(service, arguments.host, arguments.token, arguments.read_token, begin)
        server = uvicorn.Server(uvicorn.Config(
            app, log_level='warning', access_log=False, server_header=False,
            timeout_keep_alive=15, limit_concurrency=512, timeout_graceful_shutdown=5))
        server.run([listening])
        if follower is not None:
            follower.join(5)


def listen(host: str, port: int, default: int) -> socket.socket:
    """A socket that listens; at the default port, where that is taken, at a free one.

    Raises:
        OSError: the port is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        if port != default:
            listening.close()
            raise OSError(f'Cannot listen at {host}, port {port}: {error.strerror}. Give another '
                          '--port, or 0 for a free one.') from error
        listening.bind((host, 0))
    return listening


def open_service(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The service of what the arguments name, and what follows it, or None.

    Raises:
        FileNotFoundError, ValueError: it cannot be served; the message says why.
    """
    from ..search.inferencer import _as_calibration
    from ..server.follow import follow_folder, follow_store
    from ..server.service import Service, Source

    path, follower = os.path.abspath(arguments.gallery), None
    options = dict(read_only=arguments.read_only, show_paths=arguments.show_paths)
    name = os.path.basename(path.rstrip('/')) or path
    if is_folder(path):
        model, pipeline, cache = folder_model(path, arguments)
        state = (cache or Path(path, '.retrieval', 'default')).with_suffix('.serve')
        service = Service(model, pipeline, Source(name, writable(state), folder=path),
                          _as_calibration(arguments.calibration, model), **options)
        follower = follow_folder(service, pipeline, None if arguments.no_cache else cache)
        return service, follower
    if path.endswith('.py'):
        from ..runs.config import test_pipeline
        from ..runs.named_model import named_config, weights_of
        from ..search import ImageRetrievalInferencer

        config = named_config(path, arguments.cfg_options)
        weights = arguments.weights and weights_of(arguments.weights)
        inferencer = ImageRetrievalInferencer(config, checkpoint=weights,
                                              calibration=arguments.calibration,
                                              device=arguments.device)
        pipeline, store = test_pipeline(config), None
    else:
        from ..gallery import GalleryStore
        from ..gallery.shards import is_store
        from .search import open_gallery

        arguments.checkpoint = arguments.checkpoint or arguments.weights
        arguments.topk = 10
        inferencer, config = open_gallery(arguments)
        if arguments.device is not None:
            inferencer.model.to(arguments.device)
        store = GalleryStore.open(path) if is_store(path) else None
        pipeline = inferencer.pipeline
    source = Source(name, writable(Path(f'{path}.serve')), store=store,
                    datasets=[config_dataset(config)])
    service = Service(inferencer.model, pipeline, source, inferencer.calibration, **options)
    return service, follow_store(service) if store is not None else None


def folder_model(folder: str, arguments: argparse.Namespace) -> tuple[Any, Any, Path]:
    """The model that encodes a folder, its pipeline, and where what is encoded is kept."""
    from ..retrievers.build import as_retriever
    from ..search import cache_beside

    named = folder_encoder(arguments)
    model, pipeline = as_retriever(named.config, named.checkpoint, arguments.device)
    arguments.calibration = arguments.calibration or named.calibration
    model.prototype = None
    return model, pipeline, cache_beside(folder, named.name)


def writable(state: Path) -> Path:
    """The folder of what the server keeps, or, where it cannot be written to, one in the user's
    cache.
    """
    from ..search import cache_beside

    try:
        state.mkdir(parents=True, exist_ok=True)
        if os.access(state, os.W_OK):
            return state
    except OSError:
        pass
    return cache_beside(state, 'serve').with_suffix('')


if __name__ == '__main__':
    main()
