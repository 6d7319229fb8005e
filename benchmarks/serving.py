"""A server under load, beside the same texts in one call of the pipeline.

    python -m benchmarks.serving hub_configs/zh-en-small --file test.zh --output results.json

Clients on this machine send one text after the other, each over a connection of its own. Every answer is compared with
what the pipeline makes of its text. Pipeline and server take turns, in two processes with the same weights in float32.
At last the server is told to stop under load: what it has read, it must answer. Needs the extra `serve`.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as `fun-transformer` does, before torch is loaded

import torch

CLIENTS = 64
ROUNDS = 2
OPTIONS = {"guard": True, "long_text": "sentences", "batch_size": 32, "dtype": "float32", "device": "cpu"}


def load_pipe(model):
    """Return the pipeline that both sides use."""
    from transformers import pipeline

    import fun_transformer  # noqa: F401 - registers the model

    return pipeline("translation", model=model, **OPTIONS)


def serve(model, log, batch_tokens, ports):
    """Serve a model in this process until a signal, and write its log into a file."""
    from fun_transformer.serving import Limits, Translator, build_app, open_socket, run_server

    sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 - to the end of the process
    logging.basicConfig(stream=sys.stderr, format="%(message)s %(facts)s", level=logging.WARNING)
    logging.getLogger("fun_transformer.serving").setLevel(logging.INFO)
    limits = Limits(batch_tokens=batch_tokens)
    app = build_app([Translator("model", {("zh", "en"): load_pipe(model)})], limits)
    opened = open_socket("127.0.0.1", 0)
    ports.put(opened.getsockname()[1])
    run_server(app, opened, limits)


async def ask(reader, writer, text):
    """Send one request over an open connection and return its answer.

    Raises:
        OSError: The connection is closed.
    """
    body = json.dumps({"q": text, "source": "zh", "target": "en"}).encode()
    head = f"POST /translate HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\n\r\n".encode() + body)
    await writer.drain()
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length:")[1].split()[0])
        content = json.loads(await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("closed") from error
    if " 200 " not in answer.split("\r\n")[0]:
        raise ValueError(f"{answer.splitlines()[0]}: {content}")
    return content["translatedText"]


async def load(port, texts, clients, stop_after=None, pid=None):
    """Let clients ask for all texts, and return (text, answer, seconds) of each that was answered.

    Args:
        port: Of the server.
        texts: Each is asked for once.
        clients: At a time.
        stop_after: The server is told to stop when this many are answered.
        pid: Of the server.
    """
    waiting, done = list(texts)[::-1], []

    async def client():
        for _ in range(200):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.05)
        try:
            while waiting:
                text, start = waiting.pop(), time.perf_counter()
                done.append((text, await ask(reader, writer, text), time.perf_counter() - start))
                if len(done) == stop_after:
                    os.kill(pid, signal.SIGTERM)
        except OSError:
            if stop_after is None:
                raise
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return done


def compare(done, expected):
    """Return how many answers are the pipeline's, and how many are those of another text."""
    others = {answer: text for text, answer in expected.items()}
    equal = sum(expected[text] == answer for text, answer, _ in done)
    foreign = sum(expected[text] != answer and answer in others for text, answer, _ in done)
    return {"answers": len(done), "equal": equal, "of_another_text": foreign}


def cpu_seconds(pid):
    """Return the processor time of a process so far, on Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def percentile(values, percent):
    return round(statistics.quantiles(values, n=100)[percent - 1], 4)


def measure(args):
    """Return the figures."""
    lines = dict.fromkeys(line.strip() for line in Path(args.file).read_text(encoding="utf-8").splitlines())
    texts = [line for line in lines if line][: args.texts]
    context = multiprocessing.get_context("spawn")
    ports, log = context.Queue(), f"{args.output}.log"
    child = context.Process(target=serve, args=(args.model, log, args.batch_tokens, ports))
    child.start()
    pipe, port = load_pipe(args.model), ports.get(timeout=300)
    expected, rounds, seconds = {}, [], []
    asyncio.run(load(port, texts[:64], args.clients))  # both are warm
    pipe(texts[:64])
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), cpu_seconds(os.getpid())
        expected = dict(zip(texts, (record["translation_text"] for record in pipe(texts))))
        alone, alone_cpu = time.perf_counter() - start, cpu_seconds(os.getpid()) - cpu
        start, cpu = time.perf_counter(), cpu_seconds(child.pid)
        done = asyncio.run(load(port, texts, args.clients))
        served, served_cpu = time.perf_counter() - start, cpu_seconds(child.pid) - cpu
        seconds += [one for *_, one in done]
        times = {"pipeline_seconds": alone, "server_seconds": served}
        times |= {"pipeline_cpu_seconds": alone_cpu, "server_cpu_seconds": served_cpu}
        rounds.append(compare(done, expected) | {name: round(value, 2) for name, value in times.items()})
        print(json.dumps(rounds[-1]), flush=True)
    stopped = asyncio.run(load(port, texts, args.clients, stop_after=len(texts) // 4, pid=child.pid))
    child.join(120)
    answered = Path(log).read_text(encoding="utf-8").count("'status': 200") - len(texts[:64]) - ROUNDS * len(texts)

    def ratio(of):
        return round(sum(one[f"pipeline_{of}"] for one in rounds) / sum(one[f"server_{of}"] for one in rounds), 3)

    return {
        "texts": len(texts),
        "clients": args.clients,
        "batch_tokens": args.batch_tokens,
        "rounds": rounds,
        "throughput_of_the_pipeline": {"by_clock": ratio("seconds"), "by_processor_time": ratio("cpu_seconds")},
        "texts_a_second": round(ROUNDS * len(texts) / sum(one["server_seconds"] for one in rounds), 1),
        "p50_seconds": percentile(seconds, 50),
        "p99_seconds": percentile(seconds, 99),
        "stop": compare(stopped, expected) | {"answered_by_the_server": answered, "exit_status": child.exitcode},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder; its texts are asked for as zh-en, whatever they are")
    parser.add_argument("--file", required=True, help="a text a line")
    parser.add_argument("--texts", type=int, default=1000, help="of the file, equal ones once (default: 1000)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"at a time (default: {CLIENTS})")
    parser.add_argument("--batch-tokens", type=int, default=800, help="of the server (default: 800)")
    parser.add_argument("--output", required=True, help="where the figures go, as JSON")
    args = parser.parse_args()
    found = {
        "command": f"python -m benchmarks.serving {args.model} --file FILE --texts {args.texts} --output FILE",
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    found |= measure(args)
    Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
