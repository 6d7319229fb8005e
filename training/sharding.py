"""One model spread over processes by PyTorch's `fully_shard` (FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard


def shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Spread a model's weights over all processes: each layer is a unit, the rest is another.

    Accelerate would make units of the embeddings, too, and PyTorch refuses weights that are tied across units.

    Args:
        model: With `_no_split_modules`, the names of its layer classes. Changed in place.
        accelerator: Whose plugin says how.
    """
    plugin = accelerator.state.fsdp_plugin
    options: dict[str, Any] = {
        "offload_policy": plugin.cpu_offload,
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
    }
    for module in model.modules():
        if type(module).__name__ in (model._no_split_modules or ()):
            fully_shard(module, reshard_after_forward=plugin.reshard_after_forward, **options)
    fully_shard(model, **options)
    plugin.auto_wrap_policy = None  # for accelerate nothing is left to do


@contextmanager
def whole_model(accelerator: Accelerator, model) -> Iterator[Any]:
    """The model without its wrapper; the weights that FSDP2 spreads over processes are gathered meanwhile.

    `generate()` calls encoder and decoder one by one, which a model that gathers its weights by itself does not allow.
    """
    module = accelerator.unwrap_model(model)
    units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield module
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not module, recurse=False)
            unit.reshard()
