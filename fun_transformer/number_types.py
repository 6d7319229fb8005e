"""Which type of numbers a model computes in: float32, bfloat16, float16.

float16 is made for GPUs. Few CPUs have arithmetic for it, and they are no faster in it than in float32; those with AMX
or AVX-512 for bfloat16 are faster in that than in both. So where nothing is asked for, a model that was saved in 16
bits leaves float16 on a CPU (docs/pipelines.md has the figures).
"""

from itertools import chain

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"


def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices faster than float32 ones."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def read_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the type of a name; None for "auto" and None.

    Raises:
        ValueError: A model does not compute in it.
    """
    if dtype in (None, AUTO):
        return None
    found = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype} is unknown. Choose one of {', '.join([AUTO, *DTYPES])}.")
    return found


def fastest_dtype(saved: torch.dtype, device: torch.device) -> torch.dtype:
    """Return in which type a model answers fastest without losing what was saved; on other devices than CPUs as saved.

    float32 stays float32: bfloat16 would be faster, but other strings come out.
    """
    if device.type != "cpu" or saved not in (torch.float16, torch.bfloat16):
        return saved
    return torch.bfloat16 if has_fast_bfloat16() else torch.float32


def set_dtype(model: PreTrainedModel, dtype: str | torch.dtype | None) -> None:
    """Let a model that is on its device compute in another type; what is quantized or spread over devices stays.

    Args:
        model: Its weights are changed in place, those that it keeps in another type than the others left out.
        dtype: The type; "auto" for the fastest, None to leave it as it is.
    """
    wanted = read_dtype(dtype)
    saved = model.dtype
    if dtype == AUTO:
        wanted = fastest_dtype(saved, model.device)
    is_fixed = getattr(model, "hf_quantizer", None) is not None or getattr(model, "hf_device_map", None) is not None
    if wanted in (None, saved) or is_fixed:
        return
    if dtype == AUTO:
        logger.warning_once(
            f"The model was saved in {saved}, which is slow on this CPU: it computes in {wanted} (say dtype=... for "
            "another type)."
        )
    with torch.no_grad():
        for tensor in chain(model.parameters(), model.buffers()):
            if tensor.dtype == saved:
                tensor.data = tensor.data.to(wanted)
    model.config.dtype = wanted
