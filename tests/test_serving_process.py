"""The server as a process: slow clients, clients that go away, and the end by a signal."""

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from fun_transformer.serving import Limits, Translator, build_app, open_socket, run_server
from fun_transformer.serving.logs import log_as_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the server runs in a copy of this process"),
]
HEADERS = {"content-type": "application/json"}


class SlowPipe:
    """A pipeline that takes as many milliseconds for a batch as its first text says; "seen" gets all texts so far."""

    def __init__(self):
        self.seen = []

    def tokenizer(self, text, verbose=True):
        return {"input_ids": [text]}

    def count_workers(self):
        return 1

    def __call__(self, texts):
        self.seen += texts
        time.sleep(int(texts[0].split()[0]) / 1000 if texts[0][0].isdigit() else 0)
        return [{"translation_text": " ".join(self.seen) if text == "seen" else f"<{text}>"} for text in texts]


class Process:
    """A server in a child process."""

    def __init__(self, folder):
        opened = open_socket("127.0.0.1", 0)
        self.port, self.log, self.code = opened.getsockname()[1], folder / "log", None
        self.pid = os.fork()
        if self.pid == 0:
            self.serve(opened)
        opened.close()
        for _ in range(1000):
            if self.log.exists() and '"ready"' in self.log.read_text() and self.is_listening():
                return
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(self.log.read_text()[-2000:])

    def serve(self, opened):
        """Serve, and never return."""
        try:
            sys.stderr = self.log.open("w", buffering=1)
            log_as_json()
            limits = Limits(slow_seconds=0.3, seconds=20, batch_tokens=1)  # one text a batch
            run_server(build_app([Translator("model", {("zh", "en"): SlowPipe()})], limits), opened, limits)
            os._exit(0)
        finally:
            os._exit(99)

    def is_listening(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def ask(self, text, connection=None):
        """The answer to a request."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/translate", json.dumps({"q": text, "source": "zh", "target": "en"}), HEADERS)
        return json.loads(connection.getresponse().read())["translatedText"]

    def logged(self, event):
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, event):
        for _ in range(1000):
            if self.logged(event):
                return
            time.sleep(0.01)
        raise AssertionError(self.log.read_text()[-2000:])

    def wait_for_queue(self, length):
        """Wait until this many texts wait for their turn."""
        for _ in range(1000):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/metrics")
            if f'waiting_texts{{model="model"}} {length}.0' in connection.getresponse().read().decode():
                return
        raise AssertionError(self.log.read_text()[-2000:])

    def end(self, sig=None):
        """Send a signal, and return the exit status; -9 where the process had to be killed."""
        if sig:
            os.kill(self.pid, sig)
        for _ in range(3000):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        return self.end()


@pytest.fixture
def server(tmp_path):
    process = Process(tmp_path)
    yield process
    if process.code is None:
        process.end(signal.SIGKILL)


def raw_request(text, length=None):
    body = json.dumps({"q": text, "source": "zh", "target": "en"}).encode()
    head = "POST /translate HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length or len(body)}".encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /translate HTTP/1.1\r\nHost: he", b""),
        (raw_request("a", length=500), b"HTTP/1.1 408 "),
        (b"no http\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, b"HTTP/1.1 400 "),
    ],
    ids=["nothing", "half a header", "half a body", "no HTTP", "an endless header"],
)
def test_a_client_that_sends_no_whole_request_is_left(server, sent, answer):
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.settimeout(20)
    slow.sendall(sent)
    assert server.ask("meanwhile") == "<meanwhile>"
    try:
        assert slow.recv(13) == answer
        while slow.recv(4096):
            pass
    except ConnectionResetError:  # bytes of the endless header were left unread
        assert len(sent) > 50_000
    assert server.ask("later") == "<later>"


def test_the_text_of_a_client_that_went_away_is_dropped(server):
    busy = [threading.Thread(target=server.ask, args=["300 busy"]) for _ in range(2)]
    for thread in busy:
        thread.start()
    server.wait_for_queue(1)
    gone = socket.create_connection(("127.0.0.1", server.port))
    gone.sendall(raw_request("gone"))
    server.wait_for_queue(2)
    gone.close()
    assert server.ask("kept") == "<kept>"
    for thread in busy:
        thread.join()
    assert server.ask("seen") == "300 busy 300 busy kept seen"
    assert sorted(line["status"] for line in server.logged("request") if line["route"] == "/translate")[-1] == 499


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_no_accepted_request(server, sig):
    answers, problems = [], []

    def ask_on(number):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for count in range(1000):
            text = f"20 {number}-{count}"
            try:
                answers.append((text, server.ask(text, connection)))
            except (OSError, http.client.HTTPException) as problem:  # refused, or closed before it was read
                problems.append(problem)
                return

    clients = [threading.Thread(target=ask_on, args=[number]) for number in range(16)]
    for client in clients:
        client.start()
    while len(answers) < 50:
        time.sleep(0.01)
    assert server.end(sig) == 0
    for client in clients:
        client.join()
    assert all(answer == f"<{text}>" for text, answer in answers)
    assert [line["status"] for line in server.logged("request")] == [200] * len(answers)  # all that it read
    assert len(problems) == 16 and not server.is_listening()


def test_the_second_signal_ends_at_once(server):
    def wait_in_vain():
        with pytest.raises((OSError, http.client.HTTPException)):
            server.ask("15000 never")

    waiting = [threading.Thread(target=wait_in_vain) for _ in range(2)]
    for thread in waiting:
        thread.start()
    server.wait_for_queue(1)  # so that one is being answered
    os.kill(server.pid, signal.SIGTERM)
    server.wait_for("stopping")
    assert server.end(signal.SIGTERM) == 128 + signal.SIGTERM
    for thread in waiting:
        thread.join()
