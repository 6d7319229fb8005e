"""Speech2Text of transformers as somebody would train it without a trainer of speech: a bare loop over our batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fun_transformer.training.model.building import build_model
from fun_transformer.training.optimization import learning_rate_factor
from fun_transformer.training.recipe.model_config import has_fast_bf16
from fun_transformer.training.run.run import build_stream

if TYPE_CHECKING:
    from benchmarks.equal_time import Course


def build_speech2text(course: Course) -> Any:
    """A Speech2Text of our dimensions, with as many convolutions, 256 channels wide; its norms come first, as ours."""
    from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration

    ours = build_model(course.run).config
    config = Speech2TextConfig(
        vocab_size=ours.vocab_size,
        num_conv_layers=ours.frontend_layers,
        conv_kernel_sizes=[5] * ours.frontend_layers,
        conv_channels=256,
        input_feat_per_channel=ours.num_mel_bins,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_target_positions=512,
        **{f"{name}_token_id": getattr(ours, f"{name}_token_id") for name in ("pad", "bos", "eos", "decoder_start")},
        **course.dims,
    )
    config._attn_implementation = "eager"
    return Speech2TextForConditionalGeneration(config).to(course.run.accelerator.device)


def speech2text(course: Course) -> None:
    """Train it with the recipe's batches, their order, optimizer, smoothing and learning rates."""
    settings, run = course.arguments.training, course.run
    model = build_speech2text(course)
    stream = build_stream(run, build_model(run).config)
    betas = (settings.adam_beta1, settings.adam_beta2)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas, weight_decay=settings.weight_decay, fused=True
    )
    smoothing, device = course.arguments.model["label_smoothing"], run.accelerator.device
    step = tokens = 0
    course.clock.restart()
    while (done := course.done()) < 1:
        (batch,) = taken = stream.take(1)
        stream.advance(taken)
        factor = learning_rate_factor(
            settings.schedule, step + 1, settings.warmup_steps, done, int(course.dims["d_model"])
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        labels = batch.tensors["labels"]  # (batch, target_len), -100 = padding
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device)):
            logits = model.train()(**batch.tensors | {"labels": labels.clamp(min=0)}).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), label_smoothing=smoothing
        )
        loss.backward()
        if settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        step, tokens = step + 1, tokens + batch.tokens
        course.look(lambda: model, tokens)
