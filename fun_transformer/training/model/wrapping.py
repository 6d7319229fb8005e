"""What happens to a model before it is trained: spread over processes (FSDP2), compiled; and the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel


def shard(model: PreTrainedModel, accelerator: Accelerator) -> None:
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


def compile_in_place(model: PreTrainedModel, accelerator: Accelerator) -> None:
    """Compile a model, or each of its layers, as accelerate was told to (`--dynamo_backend inductor`).

    The loss stays outside: its loop over parts of a batch would make a graph of its own for each number of tokens.
    Accelerate would put it into a wrapper, in whose checkpoints every weight is called `_orig_mod.` something, and
    which takes the place of DistributedDataParallel as soon as the model is unwrapped. In place no name changes:
    a compiled run can go on without the compiler, and the other way round.

    Args:
        model: Changed in place.
        accelerator: Whose plugin says how.
    """
    plugin = accelerator.state.dynamo_plugin
    if plugin.backend == DynamoBackend.NO:
        return
    options = plugin.to_kwargs()
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    regional = options.pop("use_regional_compilation", plugin.use_regional_compilation)
    modules: list[nn.Module] = layers if regional else [model.base_model]
    for module in modules:
        module.compile(**options)
    if options.get("mode") in ("reduce-overhead", "max-autotune"):
        # CUDA graphs write a step's gradients over those of the step before. What is accumulated needs its own place.
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    plugin.backend = DynamoBackend.NO  # for accelerate nothing is left to do


@contextmanager
def whole_model(accelerator: Accelerator, model) -> Iterator[Any]:
    """The model as it was before: without its wrapper, not compiled, its weights gathered that FSDP2 spreads.

    A compiler would begin again with each length that a generated text goes through. `generate()` calls encoder and
    decoder one by one, which a model that gathers its weights by itself does not allow.
    """
    module = accelerator.unwrap_model(model)
    units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield module
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not module, recurse=False)
            unit.reshard()
