"""The optimizer and the course of its learning rate.

The learning rate is a pure function of the step and of how much of the run is done, so that a resumed run needs no
state of a scheduler.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from .recipe.arguments import TrainingArguments

Schedule = Literal["noam", "inverse_sqrt", "linear", "cosine"]


def learning_rate_factor(schedule: Schedule, step: int, warmup_steps: int, done: float, d_model: int) -> float:
    """Give the factor on the learning rate at a step.

    Args:
        schedule: "noam" is the paper's d_model^-0.5 min(step^-0.5, step warmup^-1.5) (section 5.3); "inverse_sqrt" is
            the same with its peak at 1; "linear" and "cosine" fall to 0 at the end of the run.
        step: Number of the optimizer step, from 1.
        warmup_steps: Steps in which the factor rises linearly from 0.
        done: How much of the run is done, in [0, 1].
        d_model: Width of the model, for noam.
    """
    warmup = max(warmup_steps, 1)
    if schedule == "noam":
        return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    rise = min(1.0, step / warmup)
    if schedule == "inverse_sqrt":
        return rise * min(1.0, (warmup / step) ** 0.5)
    if schedule == "linear":
        return rise * (1.0 - done)
    return rise * 0.5 * (1.0 + math.cos(math.pi * done))


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some weights and AdamW for the others, as one optimizer: one list of groups, one state to save.

    Muon (Jordan 2024) turns the momentum of a matrix into the nearest matrix whose singular values are all about 1, so
    that a step moves rare directions as far as common ones. Its steps are scaled as large as AdamW's (Liu et al. 2025,
    arXiv:2502.16982), so one learning rate and weight decay fit both.

    Args:
        muon: Has matrices inside the layers.
        adamw: Has all other weights.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW):
        self.parts = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give both parts their groups and the one state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do a step of both."""
        for part in self.parts:
            part.step()


def build_optimizer(
    model: nn.Module, settings: TrainingArguments, not_decayed: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Build AdamW that decays matrices, but neither embeddings, nor norms, nor biases (Loshchilov & Hutter 2019).

    With `optim: muon` the matrices inside the model's body are Muon's.

    Args:
        model: Its weights are trained, but those that need no gradient.
        settings: The recipe's section `training`.
        not_decayed: More matrices that do not decay.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    embeddings |= {id(parameter) for parameter in not_decayed}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in parameters if p.dim() > 1 and id(p) not in embeddings]
    spared = [p for p in parameters if p.dim() <= 1 or id(p) in embeddings]
    hidden: set[int] = set()
    if settings.optim == "muon":
        hidden = {id(p) for p in getattr(model, "base_model", model).parameters() if p.dim() == 2}
    groups = [
        {"params": [p for p in decayed if id(p) not in hidden], "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=True)
    matrices = [p for p in decayed if id(p) in hidden]
    if not matrices:
        return adamw
    scaled: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": settings.weight_decay}
    muon = torch.optim.Muon(matrices, lr=settings.learning_rate, **scaled)
    return MuonAndAdamW(muon, adamw)
