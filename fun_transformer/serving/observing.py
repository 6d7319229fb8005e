"""Every request is measured, logged and counted, however it ends."""

import logging
import time
import uuid
from typing import Any

from .logs import log
from .metrics import Metrics

SERVER_ERROR = 500


class Observed:
    """Middleware that gives each request a name, and a line in the log.

    Handlers add facts to `scope["facts"]`; no text may be among them.

    Args:
        app: The app inside.
        metrics: Where requests are counted.
    """

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, name = time.perf_counter(), SERVER_ERROR, uuid.uuid4().hex
        scope["facts"] = {}

        async def send_and_look(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = {"x-request-id": name, "x-content-type-options": "nosniff"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")  # never the path itself, which may hold anything
            self.metrics.count_request(route, status, seconds)
            level = logging.ERROR if status >= SERVER_ERROR else logging.INFO
            facts = {"id": name, "method": scope["method"], "route": route, "status": status}
            log("request", level, **facts, milliseconds=round(1000 * seconds, 1), **scope["facts"])
