"""A page and a service over a folder, gallery or index: ``retrieval serve``."""
from .client import Client, ServerError

__all__ = ['Client', 'ServerError']
