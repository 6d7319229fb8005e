"""Several processes train as one: real processes over gloo, on one machine."""

import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from forked_runs import REPOSITORY, read_metrics, write_digits_recipe
from safetensors.torch import load_file

from fun_transformer.training.run.checkpoints import checkpoint_folders, find_problem
from fun_transformer.training.scoring import shared_out

KILLED = -9


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Path of the recipe: a word of digits, backwards."""
    return write_digits_recipe(tmp_path_factory.mktemp("digits"))


def record_steps(folder: str) -> Callable:
    """A training that writes down rows and labels of each process, and the first gradients before clipping."""
    from accelerate import Accelerator

    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    real_clip = Accelerator.clip_grad_norm_

    def clip(self, parameters, *options):
        parameters = list(parameters)
        path = Path(folder, f"gradients-{self.process_index}.pt")
        if not path.exists():
            torch.save([parameter.grad.clone() for parameter in parameters], path)
        return real_clip(self, parameters, *options)

    class Recording(TrainingLoop):
        def count(self, taken):
            with Path(folder, f"batches-{self.accelerator.process_index}.jsonl").open("a") as file:
                for batch in taken:
                    line = {
                        "epoch": batch.epoch,
                        "rows": [int(row) for row in batch.rows],
                        "items": batch.items,
                        "world_size": self.accelerator.num_processes,
                    }
                    file.write(json.dumps(line) + "\n")
            return super().count(taken)

    Path(folder).mkdir(exist_ok=True)
    Accelerator.clip_grad_norm_ = clip
    return partial(train, loop=Recording)


def read_batches(folder: Path, rank: int) -> list[dict]:
    """What `record_steps` wrote of one process's batches."""
    return [json.loads(line) for line in (folder / f"batches-{rank}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_gradients_do_not_depend_on_processes_and_accumulation(children, recipe, tmp_path):
    # An epoch is four batches, so that each run sees all rows in each step, the first one in a single batch.
    settings = ["--model.dropout", "0", "--training.max_steps", "4", "--training.metric_for_best_model", "loss"]
    settings += ["--generation.metrics", "[]"]
    gradients, losses = {}, {}
    for processes, accumulation, tokens in ((1, 1, 100_000), (1, 4, 850), (2, 2, 850), (4, 1, 850)):
        output_dir, folder = tmp_path / f"{processes}x{accumulation}", tmp_path / f"steps{processes}x{accumulation}"
        options = ["--training.gradient_accumulation_steps", str(accumulation), "--training.batch_tokens", str(tokens)]
        patch = ["test_training_distributed", "record_steps", str(folder)]
        codes = children.run(recipe, output_dir, *settings, *options, patch=patch, processes=processes)
        assert codes == [0] * processes, children.log(output_dir)
        batches = [read_batches(folder, rank)[:accumulation] for rank in range(processes)]
        assert sorted(row for rank in batches for batch in rank for row in batch["rows"]) == list(range(260))
        assert all(batch["world_size"] == processes for rank in batches for batch in rank)
        if tokens == 850:  # uneven: a mean of means would be wrong
            assert len({batch["items"] for rank in batches for batch in rank}) > 2
        losses[processes, accumulation] = [line["loss"] for line in read_metrics(output_dir, "train")]
        for rank in range(processes):
            gradients[processes, accumulation, rank] = torch.load(folder / f"gradients-{rank}.pt")
    largest = max(gradient.abs().max() for gradient in gradients[1, 1, 0])
    assert largest > 0.01
    for name, found in gradients.items():
        difference = max((a - b).abs().max() for a, b in zip(found, gradients[1, 1, 0], strict=True))
        print(f"{name}: gradients differ by {difference / largest:.1e} of the largest")
        assert difference < 1e-5 * largest, name  # float32 sums in another order
    for name, found in losses.items():
        torch.testing.assert_close(found, losses[1, 1], rtol=1e-5, atol=0, msg=str(name))


@pytest.mark.slow
def test_a_run_goes_on_with_more_and_with_fewer_processes(children, recipe, tmp_path):
    folder, output_dir = tmp_path / "steps", tmp_path / "run"
    patch = ["test_training_distributed", "record_steps", str(folder)]
    settings = ["--training.num_train_epochs", "2", "--training.schedule", "inverse_sqrt", "--model.dropout", "0"]
    settings += ["--training.batch_tokens", "200", "--training.eval_steps", "1000"]
    settings += ["--generation.metrics", "[]", "--training.metric_for_best_model", "loss"]
    parts = [("3", 1, "2"), ("6", 2, "1"), ("100000", 1, "2")]
    for max_steps, processes, accumulation in parts:
        options = [
            "--training.max_steps",
            max_steps,
            "--training.gradient_accumulation_steps",
            accumulation,
            "--resume",
            "auto",
        ]
        codes = children.run(recipe, output_dir, *settings, *options, patch=patch, processes=processes)
        assert codes == [0] * processes, children.log(output_dir)
    assert "1 process(es) trained so far, now 2" in children.log(output_dir)
    assert "2 process(es) trained so far, now 1" in children.log(output_dir)
    batches = read_batches(folder, 0) + read_batches(folder, 1)
    assert [batch["world_size"] for batch in batches].count(2) == 6
    for epoch in (0, 1):
        rows = sorted(row for batch in batches for row in batch["rows"] if batch["epoch"] == epoch)
        assert rows == list(range(260))
    # The same batches in the same order give the same losses as one process alone.
    options = ["--training.gradient_accumulation_steps", "2", "--training.max_steps", "100000"]
    assert children.run(recipe, tmp_path / "alone", *settings, *options) == [0]
    found, alone = (
        [line["loss"] for line in read_metrics(path, "train")[:6]] for path in (output_dir, tmp_path / "alone")
    )
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_each_process_gets_its_own_random_numbers_back(children, recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--generation.metrics", "[]", "--training.metric_for_best_model", "loss"]
    assert children.run(recipe, whole, *options, processes=2) == [0, 0]
    codes = children.run(recipe, parts, *options, processes=2, rank=0, at_event=["step-8.partial", 2])
    assert codes[0] == KILLED and codes[1] != 0
    assert children.run(recipe, parts, *options, "--resume", processes=2) == [0, 0], children.log(parts)
    for split in ("train", "validation", "test"):
        assert read_metrics(parts, split) == read_metrics(whole, split)  # with dropout, to the last bit


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rows"), [(2, 5), (4, 3)])
def test_evaluation_scores_every_row_once_on_any_number_of_processes(children, tmp_path, processes, rows):
    recipe = write_digits_recipe(tmp_path)
    for name in ("validation", "test"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:rows]))
    # Next to no learning, and one row a batch: what is measured is that of the first weights.
    settings = ["--training.learning_rate", "1e-12", "--training.max_steps", "1", "--generation.batch_size", "1"]
    settings += ["--model.dropout", "0", "--generation.metrics", "chrf", "--training.metric_for_best_model", "loss"]
    settings += ["--training.batch_tokens", "16"]
    for number in (1, processes):
        codes = children.run(recipe, tmp_path / str(number), *settings, processes=number)
        assert codes == [0] * number, children.log(tmp_path / str(number))
    assert f"{processes} process(es)" in children.log(tmp_path / str(processes))
    one, several = (
        [json.loads(line) for line in (tmp_path / str(number) / "predictions.jsonl").read_text().splitlines()]
        for number in (1, processes)
    )
    sources = [json.loads(line)["source"] for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert len(sources) == rows
    assert [row["source"] for row in several] == sources
    assert several == one
    for split in ("validation", "test"):
        found, expected = (read_metrics(tmp_path / str(number), split)[-1] for number in (processes, 1))
        assert abs(found["loss"] - expected["loss"]) < 1e-5
        assert found["chrf"] == expected["chrf"]


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_evaluation_gives_each_process_equally_many_batches(count):
    shares = [shared_out(count, SimpleNamespace(process_index=rank, num_processes=4)) for rank in range(4)]
    assert len({len(numbers) for numbers in shares}) == 1
    assert sorted(number for numbers in shares for number in numbers if number < count) == list(range(count))


@pytest.mark.slow
def test_a_mistake_ends_all_processes_and_is_reported_once(children, recipe, tmp_path):
    output_dir = tmp_path / "run"
    assert children.run(recipe, output_dir, "--model.encoder_attention_heads", "3", processes=2) == [2, 2]
    assert "model: d_model=32 is not divisible" in children.log(output_dir)
    assert children.run(recipe, tmp_path / "none", "--resume", processes=2) == [2, 2]
    output_dir = tmp_path / "none"
    assert "There is no checkpoint in" in children.log(output_dir)
    assert "There is no checkpoint in" not in children.log(output_dir, rank=1)


@pytest.mark.slow
def test_a_dead_process_ends_the_others_and_leaves_the_last_checkpoint(children, recipe, tmp_path):
    rng = random.Random(0)
    output_dir = tmp_path / "run"
    job = {"processes": 2, "rank": 1, "after": ["checkpoints/step-4", rng.uniform(0, 0.2)], "timeout": 60}
    codes = children.run(recipe, output_dir, "--training.max_steps", "100000", **job)
    assert codes == [1, KILLED], children.log(output_dir)  # within the timeout, else all would be killed
    log = children.log(output_dir)
    assert "Another process has died" in log and "--resume" in log
    assert "Traceback" not in log
    assert find_problem(checkpoint_folders(output_dir)[-1]) is None
    step = int(checkpoint_folders(output_dir)[-1].name.removeprefix("step-"))
    more = ["--training.max_steps", str(step + 2), "--resume"]
    assert children.run(recipe, output_dir, *more, processes=2) == [0, 0], children.log(output_dir)


def answer_late(end: str) -> Callable:
    """A training that ends while rank 0 still waits, in a thread of gloo, for an answer that comes seconds late."""
    from accelerate import Accelerator

    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    real = Accelerator.free_memory

    def free_memory(self, *objects):
        torch.distributed.barrier()
        if self.process_index:
            time.sleep(3)
        torch.distributed.all_reduce(torch.ones(3), async_op=True)
        return real(self, *objects)

    class Ending(TrainingLoop):
        def count(self, taken):
            if self.progress.step == 5 and end == "error":
                raise FloatingPointError("of the test")
            if self.progress.step == 5 and end == "interrupt" and not self.accelerator.process_index:
                os.kill(os.getpid(), signal.SIGINT)
            return super().count(taken)

    def train_and_count_threads(arguments, command):
        try:
            return train(arguments, command, loop=Ending)
        finally:
            gc.collect()  # where a prepared model that is left would be destroyed
            names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
            print("threads of gloo:", [name for name in names if "gloo" in name])

    Accelerator.free_memory = free_memory
    return train_and_count_threads


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("end", "codes"), [("finish", [0, 0]), ("error", [1, 1]), ("interrupt", [130, 143])])
def test_processes_end_although_an_answer_is_late(children, recipe, tmp_path, end, codes):
    output_dir = tmp_path / "run"
    job = {"processes": 2, "patch": ["test_training_distributed", "answer_late", end], "timeout": 90}
    assert children.run(recipe, output_dir, **job) == codes, children.log(output_dir)
    for rank in range(2):
        assert "threads of gloo: []" in children.log(output_dir, rank)


# ── accelerate launch ────────────────────────────────────────────────────────────────────────────────────────────

CONFIGS = sorted((REPOSITORY / "training" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_accelerate_reads_the_config_files(path):
    config = load_config_from_file(str(path))  # refuses unknown names
    # What the launcher makes of it: the option of each name in a section must exist, too.
    parser = launch_command_parser()
    known = {action.dest for action in parser._actions}
    sections = {**(config.fsdp_config or {}), **(config.deepspeed_config or {}), **(config.dynamo_config or {})}
    assert sections.keys() <= known
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(path), "script.py"]))
    processes = {"two_cpu_processes": 2, "eight_gpus": 8, "fsdp2": 8, "deepspeed_zero2": 8, "two_nodes": 16}
    assert arguments.num_processes == processes.get(path.stem, 1)
    assert arguments.dynamo_backend.lower() == ("inductor" if path.stem == "one_gpu_compiled" else "no")
    assert not arguments.dynamo_use_dynamic
    assert arguments.use_fsdp == (path.stem == "fsdp2")
    assert arguments.use_deepspeed == (path.stem == "deepspeed_zero2")
    assert arguments.multi_gpu == (path.stem in ("two_cpu_processes", "eight_gpus", "two_nodes"))


def test_the_page_on_training_names_every_config_file():
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:training/configs/)?(\w+\.yaml)", page) + re.findall(r"configs/(\w+\.yaml)", page)
    assert {path.name for path in CONFIGS} <= set(named)
    assert all((REPOSITORY / "training" / "configs" / name).exists() for name in named if name != "recipe.yaml")


@pytest.mark.slow
def test_accelerate_launch_trains_on_two_processes_and_ctrl_c_saves(tmp_path):
    # `accelerate launch --cpu --num_processes 2` silently runs one process: the world size is read from the log.
    recipe, output_dir = write_digits_recipe(tmp_path), tmp_path / "run"
    config = REPOSITORY / "training" / "configs" / "two_cpu_processes.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_port", "0", "-m", "training.train", str(recipe), "--training.max_steps", "100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (output_dir / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and to all that it started
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "2 process(es)" in output, errors[-3000:]
    assert "Everything is saved in" in errors and "--resume" in errors
    assert find_problem(checkpoint_folders(output_dir)[-1]) is None
    assert len(list(checkpoint_folders(output_dir)[-1].glob("random_states_*.pkl"))) == 2


# ── One model spread over processes ──────────────────────────────────────────────────────────────────────────────


def shard_on_cpu() -> Callable:
    """A training with FSDP2 although there is no GPU: accelerate itself would silently use DDP."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "NO_WRAP"}
    os.environ |= {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    from accelerate import DistributedType, PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    from fun_transformer.training.engine import build_accelerator
    from fun_transformer.training.train import train

    def train_sharded(arguments, command):
        accelerator = build_accelerator(arguments)
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        assert accelerator.is_fsdp2
        return train(arguments, command, accelerator)

    return train_sharded


@pytest.mark.slow
def test_a_model_spread_over_processes_trains_generates_and_resumes_like_a_whole_one(children, recipe, tmp_path):
    # Fewer rows than one batch for each process: the other must gather its weights all the same.
    options = ["--model.dropout", "0", "--training.gradient_accumulation_steps", "2", "--data.max_rows", "17"]
    options += ["--training.batch_tokens", "64", "--training.max_steps", "8"]
    patch = ["test_training_distributed", "shard_on_cpu"]
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    assert children.run(recipe, whole, *options, processes=2) == [0, 0]
    codes = children.run(recipe, spread, *options, processes=2, patch=patch, at_event=[".step-8.partial", 1])
    assert codes == [KILLED, 1], children.log(spread)
    assert (spread / "checkpoints" / "step-4" / "optimizer_0").is_dir()  # really sharded
    assert children.run(recipe, spread, *options, "--resume", processes=2, patch=patch) == [0, 0], children.log(spread)
    for split in ("train", "validation", "test"):
        for found, expected in zip(read_metrics(spread, split), read_metrics(whole, split), strict=True):
            assert found["step"] == expected["step"]
            assert abs(found["loss"] - expected["loss"]) < 1e-5
    assert (spread / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()
    found, expected = (load_file(path / "model" / "model.safetensors") for path in (spread, whole))
    for name, weight in expected.items():
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding alone: it moves all scores of a query alike
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)
