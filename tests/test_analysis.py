"""Costs by formula against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fun_transformer.analysis import flops_per_token


@pytest.mark.parametrize("source_len, target_len", [(7, 5), (3, 11)])
def test_flops_per_token_equals_torchs_count(tiny_model, source_len, target_len):
    model = tiny_model(attn_implementation="eager")
    source = torch.randint(5, 20, (2, source_len))
    target = torch.randint(5, 20, (2, target_len))
    tokens = 2 * (source_len + target_len)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(source, labels=target, skip_logits=True)
    forward = counter.get_total_flops()
    assert flops_per_token(model.config, source_len, target_len, training=False) * tokens == forward
    with FlopCounterMode(display=False) as counter:
        model(source, labels=target, skip_logits=True).loss.backward()
    assert flops_per_token(model.config, source_len, target_len) * tokens == pytest.approx(3 * forward)
    assert counter.get_total_flops() == 3 * forward
