"""Why self-attention: what a layer costs, by formula (Vaswani et al. 2017, Table 1) and by measurement.

| layer | operations | sequential steps | longest path |
| --- | --- | --- | --- |
| self-attention | n^2 d | 1 | 1 |
| restricted self-attention | r n d | 1 | n / r |
| linear attention (Katharopoulos et al. 2020) | n d^2 / h | 1 | 1 |
| recurrent | n d^2 | n | n |
| convolution | k n d^2 | 1 | log_k n (dilated), n / k (not) |

n: length, d: d_model, r: window, k: kernel size, h: heads. The longest path between two positions is what a gradient
must travel. For restricted attention and convolution, it is the number of layers that are needed to join both ends.
Attention is measured without its projections, as in the table: they are four times n d^2, alike for all kinds.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from ..attention import attention_weights, scaled_dot_product_scores
from ..mixers import bidirectional_linear_attention, feature_map

LayerKind = Literal["self_attention", "restricted_attention", "linear_attention", "recurrent", "convolution"]
Kernel = Literal["eager", "sdpa"]


@dataclass(frozen=True)
class LayerSizes:
    """d, h, r and k of the table."""

    d_model: int = 256
    heads: int = 4
    window: int = 64
    kernel_size: int = 3


@dataclass(frozen=True)
class LayerCost:
    """A row of the table, in numbers: leading terms without constants.

    Attributes:
        operations: Of the whole sequence.
        sequential_steps: That cannot be done at once.
        longest_path: Layers, or steps, between the two ends.
    """

    operations: float
    sequential_steps: int
    longest_path: float


@dataclass(frozen=True)
class Measurement:
    """Forward and backward pass of one sequence.

    Attributes:
        length: N.
        seconds: Median; of all CPU threads together on a CPU, so that other programs count little.
        peak_bytes: Most memory in use at a time, beyond what was in use before.
    """

    length: int
    seconds: float
    peak_bytes: int


def check_kind(kind: str) -> None:
    """Refuse a name that is none of the table's.

    Raises:
        ValueError: With all names.
    """
    if kind not in get_args(LayerKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(LayerKind))}, got {kind!r}.")


def layer_cost(kind: LayerKind, length: int, sizes: LayerSizes = LayerSizes()) -> LayerCost:
    """Compute a row of the table for sequences of `length` tokens.

    Raises:
        ValueError: No such layer.
    """
    check_kind(kind)
    n, d = length, sizes.d_model
    if kind == "self_attention":
        return LayerCost(n**2 * d, 1, 1)
    if kind == "restricted_attention":
        return LayerCost(min(sizes.window, n) * n * d, 1, max(1, n / sizes.window))
    if kind == "linear_attention":
        return LayerCost(n * d**2 / sizes.heads, 1, 1)
    if kind == "recurrent":
        return LayerCost(n * d**2, n, n)
    return LayerCost(sizes.kernel_size * n * d**2, 1, max(1, math.log(n, sizes.kernel_size)))


# ── The layers ───────────────────────────────────────────────────────────────────────────────────────────────────


def eager_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d_k)) V, step by step; all tensors are (batch, heads, length, head_dim)."""
    scores = scaled_dot_product_scores(query, key, query.shape[-1] ** -0.5)  # (batch, heads, length, length)
    return attention_weights(scores, None) @ value


def restricted_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int) -> torch.Tensor:
    """Each position attends to those at most window / 2 away; never makes a (length, length) matrix.

    Queries go in blocks of `window`, each with 2 * window keys around it, of which a band may be seen.

    Args:
        query: (batch, heads, length, head_dim).
        key: Of the same shape.
        value: Of the same shape.
        window: R, even.
    """
    length, half = query.shape[2], window // 2
    blocks = math.ceil(length / window)
    rest = blocks * window - length
    query = pad(query, (0, 0, 0, rest)).unflatten(2, (blocks, window))  # (batch, heads, blocks, window, head_dim)
    key, value = (
        # (batch, heads, blocks, head_dim, 2 * window) -> (batch, heads, blocks, 2 * window, head_dim)
        pad(states, (0, 0, half, half + rest)).unfold(2, 2 * window, window).transpose(-1, -2)
        for states in (key, value)
    )
    places = torch.arange(window, device=query.device)[:, None]
    others = torch.arange(2 * window, device=query.device) - half  # places of keys, in a block's own count
    start = torch.arange(blocks, device=query.device)[:, None, None] * window
    real = (others + start >= 0) & (others + start < length)  # (blocks, 1, 2 * window)
    allowed = ((places - others).abs() <= half) & (real | (places + start >= length))  # (blocks, window, 2 * window)
    context = scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    return context.flatten(2, 3)[:, :, :length]  # (batch, heads, length, head_dim)


def linear_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """phi(Q) (phi(K)^T V), normalised; all tensors are (batch, heads, length, head_dim)."""
    return bidirectional_linear_attention(feature_map(query), feature_map(key), value)


def build_layer(
    kind: LayerKind, sizes: LayerSizes = LayerSizes(), kernel: Kernel = "eager"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Build a layer from (1, length, d_model) to the same.

    Args:
        kind: A row of the table.
        sizes: Of the layer.
        kernel: Of self-attention: "eager" writes down all scores, "sdpa" is torch's fused kernel.

    Raises:
        ValueError: No such layer.
    """
    check_kind(kind)
    if kind == "recurrent":
        lstm = nn.LSTM(sizes.d_model, sizes.d_model, batch_first=True)
        return lambda states: lstm.to(states.device)(states)[0]
    if kind == "convolution":
        convolution = nn.Conv1d(sizes.d_model, sizes.d_model, sizes.kernel_size, padding="same")
        return lambda states: convolution.to(states.device)(states.transpose(1, 2)).transpose(1, 2)
    mix: Callable = {
        "self_attention": eager_attention if kernel == "eager" else scaled_dot_product_attention,
        "restricted_attention": lambda query, key, value: restricted_attention(query, key, value, sizes.window),
        "linear_attention": linear_attention,
    }[kind]

    def attend(states: torch.Tensor) -> torch.Tensor:
        heads = states.unflatten(-1, (sizes.heads, -1)).transpose(1, 2)  # (1, heads, length, head_dim)
        return mix(heads, heads, heads).transpose(1, 2).flatten(-2)

    return attend


# ── The measurement ──────────────────────────────────────────────────────────────────────────────────────────────


def measure_layer(
    layer: Callable[[torch.Tensor], torch.Tensor],
    lengths: Sequence[int],
    d_model: int = 256,
    device: str | torch.device = "cpu",
    repeats: int = 5,
) -> list[Measurement]:
    """Measure time and memory of a forward and a backward pass, for each length.

    Args:
        layer: From (1, length, d_model) to the same, as `build_layer` makes it.
        lengths: N.
        d_model: D.
        device: Where to measure.
        repeats: Of which the median counts; there is one more to warm up.
    """
    return [measure(layer, length, d_model, torch.device(device), repeats) for length in lengths]


def measure(layer: Callable, length: int, d_model: int, device: torch.device, repeats: int) -> Measurement:
    """Measure one length."""
    states = torch.randn(1, length, d_model, device=device, requires_grad=True)
    gradient = torch.ones_like(states)

    def step() -> None:
        layer(states).backward(gradient)
        states.grad = None

    def now() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    step()
    times = []
    for _ in range(repeats):
        start = now()
        step()
        times.append(now() - start)
    return Measurement(length, sorted(times)[repeats // 2], peak_memory(step, device))


def peak_memory(step: Callable[[], None], device: torch.device) -> int:
    """Return the most bytes that tensors hold at a time while `step` runs, beyond those before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative when memory is freed
        peak = max(peak, held)
    return peak


def fit_exponent(lengths: Sequence[float], values: Sequence[float]) -> float:
    """Fit the b of value = a length^b: least squares between the logarithms.

    Raises:
        ValueError: Fewer than two lengths, or a value that is not positive.
    """
    if len(lengths) < 2 or len(lengths) != len(values) or min([*lengths, *values]) <= 0:
        raise ValueError(
            f"An exponent needs two or more lengths and as many positive values, got {lengths}, {values}."
        )
    x, y = (torch.tensor(numbers, dtype=torch.double).log() for numbers in (lengths, values))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())
