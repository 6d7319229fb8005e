"""Translators as a web server: LibreTranslate's routes and one of our own (`pip install 'fun-transformer[serve]'`)."""

from .app import build_app
from .batching import Batcher, Options
from .keys import ApiKeys
from .limits import Limits
from .server import open_socket, run_server
from .translators import Translator

__all__ = ["ApiKeys", "Batcher", "Limits", "Options", "Translator", "build_app", "open_socket", "run_server"]
