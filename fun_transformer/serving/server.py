"""uvicorn with an end that loses nothing, and with no patience for clients that send nothing."""

import asyncio
import json
import os
import socket
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits
from .logs import log

KEEP_ALIVE_SECONDS = 15
LONGEST_HEADERS = 16_384  # bytes


class Server(uvicorn.Server):
    """A server that ends at the first SIGTERM or Ctrl-C when all requests are answered, and at the second at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting; or end here and now, where that was asked for before."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, then end."""
        log("stopping", requests=len(self.server_state.tasks))
        await super().shutdown(sockets)
        log("stopped")


def patient_for(seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes a connection on which no whole request header comes in time."""

    class Patient(H11Protocol):
        """HTTP/1.1 with a limit on the time between the first byte of a header and the last."""

        timer: asyncio.TimerHandle | None = None

        def send_400_response(self, msg: str) -> None:
            """Answer what is no HTTP, as JSON."""
            body = json.dumps({"error": "This is no request in HTTP/1.1. Ask with an HTTP client."}).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            headers.append(("connection", "close"))
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.give_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.is_waiting and self.timer:
                self.timer.cancel()
                self.timer = None
            elif self.is_waiting and not self.timer:
                self.timer = self.loop.call_later(seconds, self.give_up)

        @property
        def is_waiting(self) -> bool:
            """Tell whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def give_up(self) -> None:
            """Close the connection, unless a request has come after all."""
            self.timer = None
            if self.is_waiting and not self.transport.is_closing():
                self.transport.close()

    return Patient


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has an address and does not listen yet.

    Raises:
        ValueError: The address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port} cannot be used: {error.strerror or error}. Choose others."
        ) from error
    return opened


def address_of(opened: socket.socket) -> str:
    """Return where a socket is, for a browser."""
    host, port = opened.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run_server(app: Any, opened: socket.socket, limits: Limits) -> None:
    """Serve an app until the process is told to stop."""
    config = uvicorn.Config(
        app,
        http=patient_for(limits.slow_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(limits.seconds + limits.slow_seconds) + 1,
        h11_max_incomplete_event_size=LONGEST_HEADERS,
    )
    log("ready", address=address_of(opened))
    Server(config).run(sockets=[opened])
