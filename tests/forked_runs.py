"""Many short training runs in children of one process that has imported everything, to kill some of them.

    python tests/forked_runs.py

reads one job a line from stdin and answers with one line each, both JSON; `Children` is the other end. A training is

    {"argv": [...], "processes": 2, "log": PATH, "timeout": 60,
     "at_event": ["", 12],  # the child kills itself before the 12th change to a file of the run with "" in its path,
     "after": [NAME, 0.2],  # or is killed this many seconds after a file of this name (below output_dir) exists,
     "rank": 1,             # which process dies (of several)
     "file_size": [NAME, 1000],  # once the file exists, no file can grow over this many bytes: a full disk
     "patch": ["module", "function", argument, ...]}  # called in the child; may return what trains instead of `train`

The answer is {"codes": [exit code of each process; -9: killed], "seconds": ...}.

`Children.start` runs any program in such a child, as `python -m NAME` or `python -c CODE` would in seconds more.
"""

import gc
import importlib
import json
import os
import random
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

RECIPE = {
    "model": {
        **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.1},
    },
    "tokenizer": {"type": "char", "min_frequency": 1},
    "training": {
        **{"max_steps": 12, "batch_tokens": 256, "learning_rate": 3e-3, "schedule": "linear", "warmup_steps": 2},
        **{
            "precision": "fp32",
            "eval_steps": 4,
            "save_steps": 4,
            "logging_steps": 1,
            "metric_for_best_model": "exact",
        },
    },
    "generation": {"metrics": ["exact", "chrf"], "max_new_tokens": 12, "eval_rows": 20},
}
REPOSITORY = Path(__file__).parents[1]
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def die_at_event(output_dir: str, part: str, at_event: int) -> None:
    """Kill this process before the given one of all changes that it makes to files below a folder."""
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event in EVENTS and isinstance(arguments[0], str | os.PathLike):
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return  # reading
            path = os.fspath(arguments[0])
            if path.startswith(output_dir) and part in path:
                seen += 1
                if seen == at_event:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(job: dict, rank: int, port: int) -> None:
    """Train, and never return."""
    processes = job.get("processes", 1)
    log = os.open(f"{job['log']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["LOCAL_WORLD_SIZE"] = str(os.cpu_count())  # one thread each
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    argv = job["argv"]
    output_dir = argv[argv.index("--output_dir") + 1]
    if "at_event" in job and rank == job.get("rank", 0):
        die_at_event(output_dir, *job["at_event"])
    if "file_size" in job:
        name, size = job["file_size"]
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

        def full_disk(event, arguments):
            if event == "open" and Path(output_dir, name).exists():
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.addaudithook(full_disk)
    code = 70
    try:
        from fun_transformer.training.train import main, train

        run = train
        if "patch" in job:
            module, name, *values = job["patch"]  # this folder is on the path
            run = getattr(importlib.import_module(module), name)(*values) or train
        code = main(argv, run)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(job: dict) -> dict:
    """Fork the processes of a job and wait for them."""
    started = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(job.get("processes", 1)):
        pid = os.fork()
        if not pid:
            child(job, rank, port)
        pids.append(pid)
    codes: dict[int, int] = {}
    waiting_for, kill_at = job.get("after"), None
    argv = job["argv"]
    output_dir = Path(argv[argv.index("--output_dir") + 1])
    while len(codes) < len(pids):
        if waiting_for and (output_dir / waiting_for[0]).exists():
            kill_at, waiting_for = time.monotonic() + waiting_for[1], None
        now = time.monotonic()
        victim = pids[job.get("rank", 0)]
        if kill_at and now >= kill_at and victim not in codes:
            os.kill(victim, signal.SIGKILL)
            kill_at = None
        if now - started > job.get("timeout", 120):
            for pid in set(pids) - codes.keys():
                os.kill(pid, signal.SIGKILL)
        for pid in set(pids) - codes.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return {"codes": [codes[pid] for pid in pids], "seconds": time.monotonic() - started}


def program(job: dict) -> None:
    """Run what would follow `python` on a command line, and never return."""
    for number, name in ((0, os.devnull), (1, job["output"]), (2, job["error"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job["cwd"])
    os.environ.update(job["environment"])
    kind, *sys.argv = job["words"]
    sys.path[0] = ""  # as for -c and -m
    code: object = 0
    try:
        if kind == "-m":
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            exec(compile(sys.argv[0], "-c", "exec"), {"__name__": "__main__"})
    except SystemExit as exit:
        code = exit.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def start(job: dict) -> dict:
    """Fork a program, and do not wait for it."""
    pid = os.fork()
    if not pid:
        program(job)
    return {"pid": pid}


def wait(job: dict) -> dict:
    """Wait this many seconds for the end of a program; "code" is None if it still runs."""
    deadline = time.monotonic() + job["seconds"]
    while True:
        found, status = os.waitpid(job["pid"], os.WNOHANG)
        if found or time.monotonic() >= deadline:
            return {"code": os.waitstatus_to_exitcode(status) if found else None}
        time.sleep(0.005)


def write_digits_recipe(folder: Path) -> Path:
    """A recipe for a tiny model, and its data: 300 words of digits, to be written backwards."""
    rng = random.Random(0)
    words = {"".join(rng.choices("0123456789", k=rng.randint(2, 6))) for _ in range(400)}
    rows = [{"source": word, "target": word[::-1]} for word in sorted(words)[:300]]
    rng.shuffle(rows)
    for name, part in (("train", rows[:260]), ("validation", rows[260:280]), ("test", rows[280:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    data = {name: {"dataset": str(folder / f"{name}.jsonl")} for name in ("train", "validation", "test")}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": data, "output_dir": str(folder / "run")}), encoding="utf-8")
    return path


def read_metrics(output_dir: Path, split: str) -> list[dict]:
    """Lines of metrics.jsonl, without what the clock decides."""
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines if line["split"] == split]


class Children:
    """Starts the process that forks, and hands it jobs.

    Args:
        strangers: The process imports torch and what else takes long, but neither our package nor a library that reads
            the environment when it is imported, as those of Hugging Face do.
    """

    def __init__(self, strangers: bool = False):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("HF_TOKEN", None)
        self.process = subprocess.Popen(
            [sys.executable, __file__, *(["strangers"] if strangers else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        )

    def run(self, recipe: Path | None, output_dir: Path, *options: str, **job: Any) -> list[int]:
        """Train in as many children as `processes` says; returns their exit codes, negative ones are signals."""
        argv = [*([str(recipe)] if recipe else []), "--output_dir", str(output_dir), *options]
        log = output_dir.with_name(f"{output_dir.name}.log")
        return self.ask("run", {"argv": argv, "log": str(log), **job})["codes"]

    def ask(self, what: str, job: dict) -> dict:
        """Hand a job to one of the functions above; returns its answer."""
        self.process.stdin.write(json.dumps([what, job]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words: Any, cwd: Path = REPOSITORY, **environment: str) -> "Program":
        """Start `python -m NAME ARGUMENTS` or `python -c CODE ARGUMENTS`, given without `python`."""
        return Program(self, words, cwd, environment)

    def python(self, *words: Any, cwd: Path = REPOSITORY, **environment: str) -> str:
        """Run a program to its end, which must be a good one; returns what it printed."""
        program = self.start(*words, cwd=cwd, **environment)
        assert program.wait() == 0, f"{words}\n{program.output}\n{program.error}"
        return program.output

    def log(self, output_dir: Path, rank: int = 0) -> str:
        """What the runs in this folder printed so far."""
        return output_dir.with_name(f"{output_dir.name}.log.{rank}").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()


class Program:
    """A program that was started."""

    def __init__(self, children: Children, words: Sequence[Any], cwd: Path, environment: dict[str, str]):
        self.children, self.folder, self.code = children, tempfile.TemporaryDirectory(), None
        self.paths = [Path(self.folder.name, name) for name in ("output", "error")]
        output, error = map(str, self.paths)
        job = {"words": list(map(str, words)), "cwd": str(cwd), "environment": environment}
        self.pid = children.ask("start", {**job, "output": output, "error": error})["pid"]

    def wait(self, poll: bool = False) -> int | None:
        """Wait for its end and return its exit code, a negative one for a signal; with `poll`, None while it runs."""
        if self.code is None:
            self.code = self.children.ask("wait", {"pid": self.pid, "seconds": 0 if poll else 300})["code"]
        if self.code is None and not poll:
            os.kill(self.pid, signal.SIGKILL)  # it would never end
            return self.wait()
        return self.code

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self.paths[0].read_text(encoding="utf-8")

    @property
    def error(self) -> str:
        """What it wrote to stderr so far."""
        return self.paths[1].read_text(encoding="utf-8")


def import_for_trainings() -> None:
    """Import what a training needs, once and not in each child."""
    import matplotlib.figure  # noqa: F401
    import sacrebleu  # noqa: F401
    import scipy.io  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import fun_transformer.training.train
    import fun_transformer.visualization  # noqa: F401

    get_checkpoint_conversion_mapping("fun_transformer")  # what the first model that is loaded compiles


def import_for_strangers() -> None:
    """Import what a process without our package needs, as far as it reads nothing of the environment."""
    import scipy.optimize  # noqa: F401
    import torch._dynamo
    import torch.distributed.tensor  # noqa: F401

    assert not {"transformers", "huggingface_hub", "datasets", "fun_transformer"} & sys.modules.keys()


def main() -> None:
    """Serve jobs."""
    import torch

    if sys.argv[1:] == ["strangers"]:
        import_for_strangers()
    else:
        import_for_trainings()
    torch.set_num_threads(1)
    gc.freeze()  # no child looks through what was imported for garbage
    for line in sys.stdin:
        what, job = json.loads(line)
        print(json.dumps({"run": run, "start": start, "wait": wait}[what](job)), flush=True)


if __name__ == "__main__":
    main()
