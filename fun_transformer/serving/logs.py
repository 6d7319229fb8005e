"""Logs as JSON, one object a line, in which no text of a client is.

An error is told by its kind and the lines of code that led to it: what it says may have a text in it.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

LOGGER = logging.getLogger("fun_transformer.serving")
DEEPEST = 12  # lines of code that led to an error


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: time, level, event, and what `log` was told."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0]:
            entry["error"] = record.exc_info[0].__name__
            entry["at"] = code_lines(record.exc_info[2])
        return json.dumps(entry, ensure_ascii=False, default=str)


def code_lines(trace: TracebackType | None) -> list[str]:
    """Return the lines of code that led to an error, the last ones of many."""
    frames = traceback.extract_tb(trace)[-DEEPEST:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def log(event: str, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Write a line: what happened, and facts about it."""
    LOGGER.log(level, event, exc_info=error, extra={"facts": facts})


def log_as_json() -> None:
    """Write all logs of this process to stderr as JSON: ours, uvicorn's and those of transformers."""
    from transformers.utils import logging as transformers_logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(logging.INFO)
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    logging.getLogger("fun_transformer.pipeline_fun_transformer").setLevel(logging.ERROR)  # advice for its caller
    logging.captureWarnings(True)
