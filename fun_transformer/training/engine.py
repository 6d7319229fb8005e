"""TODO engine."""

import ctypes
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, broadcast_object_list, parse_flag_from_env

from .data.caching import cores
from .recipe.arguments import RunArguments
from .recipe.model_config import choose_precision


def use_all_cores(processes_here: int) -> None:
    """Share this machine's cores among its processes: `accelerate launch` leaves one to each."""
    torch.set_num_threads(max(1, cores() // processes_here))


def keep_freed_memory() -> None:
    """Keep what a step has freed for the next one: what goes back to the system costs a page fault every 4 KiB.

    This is the C library's to do, where it is glibc. Tensors over 32 MiB go back all the same.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**31 - 1)


def build_accelerator(arguments: RunArguments) -> Accelerator:
    """The engine: device, precision, processes and trackers."""
    waiting = timedelta(minutes=arguments.training.timeout_minutes)
    # Without this, several processes on a machine without accelerators would each train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=waiting)
    if state.device.type == "cpu":
        use_all_cores(int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes)))
        keep_freed_memory()
    precision = choose_precision(arguments.training, state.device)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with=usable_trackers(arguments),
        project_config=ProjectConfiguration(arguments.output_dir, logging_dir=f"{arguments.output_dir}/tensorboard"),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        engine = accelerator.state.deepspeed_plugin.deepspeed_config
        engine["gradient_clipping"] = arguments.training.max_grad_norm or 0.0  # it clips by itself
        engine["train_micro_batch_size_per_gpu"] = 1  # it insists on a number; ours differ in size
    return accelerator


def usable_trackers(arguments: RunArguments) -> list[str]:
    """The trackers of the recipe; TensorBoard only where it is installed.

    Raises:
        ValueError: When one that somebody asked for is not installed.
    """
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in arguments.training.report_to:
        if name not in available and name != "tensorboard":
            raise ValueError(f"training.report_to names {name}, which is not installed: pip install {name}.")
    return [name for name in arguments.training.report_to if name in available]


def start_trackers(accelerator: Accelerator, arguments: RunArguments) -> None:
    """Tell the trackers of the run and of its arguments."""
    flat = flat_values(yaml.safe_load(arguments.to_yaml()))
    config = {name: value if isinstance(value, int | float | str) else str(value) for name, value in flat.items()}
    accelerator.init_trackers("fun_transformer", config)


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


def flat_values(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        inside = isinstance(value, dict)
        flat |= flat_values(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return flat
