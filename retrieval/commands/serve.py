"""Serve a folder, gallery or index: a page to look at it, and an API over the same search."""
from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..progress import showing
from .command_line import CommandParser, answer, reports_errors
from .folders import (
    add_folder_options,
    add_parts_options,
    check_exists,
    config_dataset,
    cut_given,
    folder_encoder,
    is_folder,
)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('serve', description=__doc__)
    arguments.add_argument('gallery', help='a folder of images, which is encoded and followed; a '
                           'gallery file or store; a bundle with a gallery; the file of an '
                           'index; or a config, whose gallery is served')
    arguments.add_argument('weights', nargs='?', metavar='CHECKPOINT',
                           help="the checkpoint, where the source is a config")
    arguments.add_argument('--host', default='127.0.0.1',
                           help='where to listen (default: 127.0.0.1, which only this machine '
                           'reaches; any other asks for --token)')
    arguments.add_argument('--allow-host', nargs='+', metavar='NAME', default=(),
                           help='further host names that lead here, such as that of a proxy')
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
    arguments.add_argument('--cut', metavar='auto|SHARE', help='the line without labels, as the '
                           'tail of the scores tells it; with a SHARE so that at most so many of '
                           'the queries without a match get a result')
    arguments.add_argument('--reload', nargs='+', metavar='PATH',
                           help='a better model, which is encoded and compared beside the one '
                           'that is served, and can be switched to: [CONFIG] CHECKPOINT, without '
                           '--config a bundle or the name of an encoder, or of a gallery another '
                           'GALLERY. It may appear later (default: what is served, read again)')
    arguments.add_argument('--state', metavar='DIR', help='where thumbnails, uploads and marks are '
                           'kept, such as a folder that several servers share (default: beside '
                           'what is served)')
    arguments.add_argument('--device', help='where the model goes, such as cuda:0')
    arguments.add_argument('--no-browser', action='store_true', help='do not open the browser')
    arguments.add_argument('--ignore-fingerprint', action='store_true',
                           help='serve a gallery that another model or pipeline made')
    add_parts_options(arguments)
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> None:
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
        service, follower, reload = open_service(arguments)
        port = listening.getsockname()[1]
        name = f'[{arguments.host}]' if ':' in arguments.host else arguments.host
        url = f'http://{"127.0.0.1" if arguments.host == "0.0.0.0" else name}:{port}/'  # noqa: S104

        def begin() -> None:
            if follower is not None:
                follower.start()
            if arguments.reload and all(map(os.path.exists, arguments.reload)):
                threading.Thread(target=reload_when_ready, args=(service, reload),
                                 daemon=True).start()
            print(f'Serving {service.source.name} at {url} (Ctrl-C ends it)', flush=True)
            if service.trouble is not None:
                print(f'Not yet, until it is switched to this model: {service.trouble}',
                      file=sys.stderr, flush=True)
            answer(dict(url=url, state=str(service.source.state)))
            if not arguments.no_browser and sys.stdout.isatty():
                import webbrowser
                webbrowser.open(url + (f'?token={arguments.token}' if arguments.token else ''))

        app = create_app(service, arguments.host, arguments.token, arguments.read_token, begin,
                         reload, arguments.allow_host)
        server = uvicorn.Server(uvicorn.Config(
            app, log_level='warning', access_log=False, server_header=False,
            timeout_keep_alive=15, limit_concurrency=512, timeout_graceful_shutdown=5))
        try:
            with showing(False):  # of nobody's in particular
                server.run([listening])
        except KeyboardInterrupt:
            raise KeyboardInterrupt('The server has ended; what it was given is kept in '
                                    f'{service.source.state}.') from None
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


def reload_when_ready(service: Any, reload: Any) -> None:
    """Begin with the better model when the first one has encoded everything."""
    while service.snapshot is None or service.encoding.running:
        if service.stop.wait(0.2):
            return
    reload.begin()


def open_service(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The service of what the arguments name, what follows it, or None, and what loads another
    model.

    Raises:
        FileNotFoundError, ValueError: it cannot be served; the message says why.
    """
    from ..index import Index
    from ..search.inferencer import _as_calibration
    from ..server.follow import follow_folder, follow_store
    from ..server.reload import Reload
    from ..server.service import Service, Source

    path = os.path.abspath(arguments.gallery)
    name = os.path.basename(path.rstrip('/')) or path
    cut = None if arguments.cut is None else cut_given(arguments)
    of_folder = is_folder(path)
    served, dataset = folder_model(path, arguments) if of_folder else gallery_model(arguments)
    is_index = isinstance(served.model.prototype, Index)
    kept = (served.cache or Path(path, '.retrieval', 'default')).with_suffix('.serve') \
        if of_folder else Path(f'{path}.serve')
    served.calibration = _as_calibration(arguments.calibration, served.model) \
        or served.calibration
    if cut is not None and is_index:
        raise ValueError('--cut reads the embeddings of the gallery, and an index alone has none: '
                         'serve the gallery, or give a --calibration.')
    served.cut = cut
    if of_folder and arguments.no_cache:
        served.cache = None
    if arguments.state is not None:
        kept = Path(arguments.state)
        kept.mkdir(parents=True, exist_ok=True)
    source = Source(name, writable(kept), folder=path if of_folder else None,
                    datasets=[] if of_folder else [dataset])
    service = Service(served, source, read_only=arguments.read_only,
                      show_paths=arguments.show_paths)
    follower = follow_folder(service) if of_folder else \
        follow_store(service) if served.store is not None else None
    other = None if is_index else other_model(arguments, of_folder)

    def load() -> Any:
        assert other is not None
        found = (folder_model(path, other) if of_folder else gallery_model(other))[0]
        found.cut = cut
        if of_folder and found.cache is not None:
            taken, found.spare = service.served.cache, found.cache.with_suffix('.new.safetensors')
            if taken == found.cache:
                found.cache, found.spare = found.spare, found.cache
            if arguments.no_cache:
                found.cache = None
        return found
    missing = ('The folder is encoded with the default model: start the server with --reload '
               'CONFIG CHECKPOINT or an encoder, or with --config and --checkpoint.')
    if is_index:
        missing = 'An index alone is compared with no other: start the server anew.'
    return service, follower, Reload(service, load if other else None, missing)


def other_model(arguments: argparse.Namespace, of_folder: bool) -> argparse.Namespace | None:
    """The arguments of the model that is loaded beside the served one; None where there is none.

    Raises:
        ValueError: --reload has the wrong number of paths.
    """
    other, given = argparse.Namespace(**vars(arguments)), arguments.reload or []
    takes_config = of_folder or arguments.gallery.endswith('.py')
    if len(given) > (2 if takes_config else 1):
        raise ValueError('--reload takes ' + ('[CONFIG] CHECKPOINT' if takes_config else
                                              'one GALLERY') + f', got {" ".join(given)}.')
    if of_folder:
        if given:
            other.config, other.checkpoint = ([arguments.config] + given)[-2:]
            other.encoder = None
        if len(given) == 1 and arguments.config is None:
            other.encoder, other.checkpoint = given[0], None
            return other
        return other if other.config is not None and other.checkpoint is not None else None
    if takes_config:
        other.gallery, other.weights = ([arguments.gallery] + (given or [arguments.weights]))[-2:]
    elif given:
        other.gallery = given[0]
    return other


def gallery_model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The model over a config's gallery, a gallery file or a store, and the dataset of its
    pictures where that is known.
    """
    from ..index import index_type
    from ..server.served import Served

    path, store = os.path.abspath(arguments.gallery), None
    if path.endswith('.py'):
        from ..runs.config import test_pipeline
        from ..runs.named_model import named_config, weights_of
        from ..search import ImageRetrievalInferencer

        config = named_config(path, arguments.cfg_options)
        weights = arguments.weights and weights_of(arguments.weights)
        pipeline = test_pipeline(config)
        index = filled_index(config)
        if index is not None:  # nothing is encoded, and every server sees the same rows
            from ..retrievers import build_retriever
            return Served(build_retriever(config, weights, index, arguments.device),
                          pipeline), config_dataset(config)
        inferencer = ImageRetrievalInferencer(config, checkpoint=weights,
                                              device=arguments.device)
    elif index_type(path) is not None:
        return index_model(path, arguments), None
    else:
        from ..gallery import GalleryStore
        from ..gallery.shards import is_store
        from .search import open_gallery

        options = argparse.Namespace(**vars(arguments))
        options.checkpoint = arguments.checkpoint or arguments.weights
        options.topk, options.calibration = 10, None
        inferencer, config = open_gallery(options)
        if arguments.device is not None:
            inferencer.model.to(arguments.device)
        store = GalleryStore.open(path) if is_store(path) else None
        pipeline = inferencer.pipeline
    return Served(inferencer.model, pipeline, inferencer.calibration, store=store), \
        config_dataset(config)


def filled_index(config: Any) -> Any:
    """The index of a config's model, where that outlives the process and holds rows already.

    Raises:
        ValueError, OSError: its settings are wrong, or its server is down.
    """
    from ..registry import INDEXES

    settings = dict(config.model.get('index') or {})
    kind = INDEXES.get(settings['type']) if isinstance(settings.get('type'), str) else None
    if kind is None or not kind.capabilities.persistent or 'path' in settings:
        return None
    settings.setdefault('similarity', config.model.get('similarity_fn', 'cosine_similarity'))
    index = INDEXES.build(settings)
    if len(index):
        return index
    index.close()
    return None


def index_model(path: str, arguments: argparse.Namespace) -> Any:
    """The model over the file of an index: that of --config and --checkpoint, or one that encodes
    nothing.

    Raises:
        ValueError: the config's model searches by another similarity.
    """
    from torch import nn

    from ..index import open_index
    from ..retrievers import ImageToImageRetriever, build_retriever
    from ..runs.config import test_pipeline
    from ..runs.named_model import named_config, weights_of
    from ..server.served import Served

    config, checkpoint = arguments.config, arguments.checkpoint
    if (config is None) != (checkpoint is None):
        raise ValueError('Pictures are encoded with the model of --config and --checkpoint '
                         'together; with neither, an index is searched by row, id and vector.')
    index = open_index(path, device=arguments.device)
    if config is None:
        return Served(ImageToImageRetriever(nn.Identity(), index, topk=10,
                                            similarity_fn=index.similarity.name).eval(), [])
    config = named_config(config, arguments.cfg_options)
    model = build_retriever(config, weights_of(checkpoint), index, arguments.device)
    if model.similarity.name != index.similarity.name:
        raise ValueError(f'The index {path!r} searches by {index.similarity.name}, the model by '
                         f'{model.similarity.name}: give the config that the index was built for.')
    return Served(model, test_pipeline(config))


def folder_model(folder: str, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The model that encodes a folder, with its cache; and no dataset."""
    from ..retrievers.build import as_retriever
    from ..search import cache_beside
    from ..search.inferencer import _as_calibration
    from ..server.served import Served

    named = folder_encoder(arguments, folder)
    model, pipeline = as_retriever(named.config, named.checkpoint, arguments.device)
    model.prototype = None
    assert pipeline is not None
    cache = cache_beside(folder, named.name)
    spare = cache.with_suffix('.new.safetensors')
    return Served(model, pipeline, _as_calibration(named.calibration, model), cache=cache,
                  spare=spare if spare.exists() else None), None


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
