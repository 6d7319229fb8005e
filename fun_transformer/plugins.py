"""Plug-ins: the user's own Python files, which add metrics, objectives, positions or mixers before they are named."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path


def load_plugins(paths: Iterable[str]) -> None:
    """Run Python files, each once a process.

    A file becomes a module whose name ends in a checksum of its text. So processes that `datasets` starts find its
    classes again, and rows that were encoded by an older text are not taken for those of a newer one.

    Args:
        paths: Files, absolute or relative to the working directory.

    Raises:
        ValueError: A file is missing or has an error.
    """
    for path in map(Path, paths):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ValueError(f"The plug-in {path} cannot be read: {error.strerror}. Name a Python file.") from error
        name = f"fun_transformer_plugin_{path.stem}_{hashlib.blake2b(text, digest_size=6).hexdigest()}"
        if name not in sys.modules:
            load_module(path.resolve(), name)


def load_module(path: Path, name: str) -> None:
    """Run one file as a module of the given name.

    Raises:
        ValueError: The file has an error; the message says where.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"The plug-in {path} is no Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as `import` does: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(
            f"The plug-in {path}, line {line_of(error, path)}: {type(error).__name__}: {error}"
        ) from error


def line_of(error: Exception, path: Path) -> int | None:
    """Return the line of a file in which an error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
