"""What a run trains with: device, precision, processes, threads, trackers."""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState, is_initialized
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, broadcast_object_list, parse_flag_from_env

from .platform import available_cores, keep_freed_memory
from .recipe.arguments import RunArguments
from .recipe.model_config import choose_precision
from .recipe.reading import flat_values


def choose_threads(threads: int | str, processes_here: int, cores: int) -> int | None:
    """Choose how many CPU threads a process computes with; None to leave that as it is.

    Args:
        threads: `training.threads`: a number, or "auto": what OMP_NUM_THREADS says, else this machine's cores, shared
            by its processes. Launchers set OMP_NUM_THREADS to 1 where it is not set, so under one a 1 says nothing.
        processes_here: Processes on this machine.
        cores: Cores of this machine.
    """
    if threads != "auto":
        return int(threads)
    launched = "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted and not (launched and wanted == "1"):
        return None
    return max(1, cores // processes_here)


def forget_last_run(precision: str) -> None:
    """Make accelerate forget the precision of an earlier run of this process: it would refuse another.

    Args:
        precision: Of the run to come, "no" or "bf16".

    Raises:
        ValueError: The earlier run had several processes, which have parted.
    """
    if not is_initialized():
        return
    state = AcceleratorState()
    if state.distributed_type != DistributedType.NO and not torch.distributed.is_initialized():
        raise ValueError(
            "Several processes train together only once. Start new ones for another run, with accelerate launch."
        )
    if state.mixed_precision != precision:
        AcceleratorState._reset_state()


def build_accelerator(arguments: RunArguments) -> Accelerator:
    """Start the engine: device, precision, processes and trackers."""
    waiting = timedelta(minutes=arguments.training.timeout_minutes)
    # Without this, several processes on a machine without accelerators would each train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=waiting)
    if state.device.type == "cpu":
        processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
        if threads := choose_threads(arguments.training.threads, processes_here, available_cores()):
            torch.set_num_threads(threads)
        keep_freed_memory()
    precision = "bf16" if choose_precision(arguments.training, state.device) == "bf16" else "no"
    forget_last_run(precision)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=precision,
        log_with=usable_trackers(arguments),
        project_config=ProjectConfiguration(arguments.output_dir, logging_dir=f"{arguments.output_dir}/tensorboard"),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        engine = accelerator.state.deepspeed_plugin.deepspeed_config
        engine["gradient_clipping"] = arguments.training.max_grad_norm or 0.0  # it clips by itself
        engine["train_micro_batch_size_per_gpu"] = 1  # it insists on a number; ours differ in size
    return accelerator


def usable_trackers(arguments: RunArguments) -> list[str]:
    """Name the trackers of the recipe; TensorBoard only where it is installed.

    Raises:
        ValueError: When one that the recipe asks for is not installed.
    """
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in arguments.training.report_to:
        if name not in available and name != "tensorboard":
            raise ValueError(f"training.report_to names {name}, which is not installed: pip install {name}.")
    return [name for name in arguments.training.report_to if name in available]


def start_trackers(accelerator: Accelerator, arguments: RunArguments) -> None:
    """Tell the trackers of the run and of its arguments."""
    flat = flat_values(arguments)
    config = {name: value if isinstance(value, int | float | str) else str(value) for name, value in flat.items()}
    accelerator.init_trackers("fun_transformer", config)


def end_processes(accelerator: Accelerator, error: BaseException | None = None) -> None:
    """End trackers and processes, without a chance that one waits forever.

    The prepared model refers to the processes' connections. If it outlived them, its end would wait for the threads of
    gloo while holding the lock (the GIL) that one of these may be waiting for. So it goes first, and with it the
    frames of an error, which refer to it. After an error on GPUs the connections are left alone: NCCL would wait for
    the other processes.

    Args:
        accelerator: Whose objects nothing else refers to.
        error: That ends the run.
    """
    if error is not None and not is_on_gloo():
        return
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    accelerator.free_memory()
    accelerator.end_training()


def is_on_gloo() -> bool:
    """Tell whether there are several processes, on CPUs."""
    return torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo"


class ErrorOfMainProcess(ValueError):
    """The main process raises, and prints, the same error."""


def on_main_process(function: Callable, *args: Any) -> Any:
    """Call a function on the main process alone; all processes get its result, or stop with its error."""
    result: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            result = [function(*args)]
        except Exception as error:  # raised again below: the others must not wait for a result
            result = [error]
    given = broadcast_object_list(result)[0]
    if isinstance(given, Exception):
        raise given if PartialState().is_main_process else ErrorOfMainProcess(str(given))
    return given


def main_process_first(function: Callable, *args: Any) -> Any:
    """Call a function on all processes, first on the main one, which fills the caches; its error stops all."""
    result: list[Any] = []
    on_main_process(lambda: result.append(function(*args)))
    return result[0] if result else function(*args)
