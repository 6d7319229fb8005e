"""The loss: label-smoothed cross-entropy that never holds all logits in float32 (paper, section 5.4).

With V classes, smoothing epsilon and label y, the target distribution is q(k) = (1 - epsilon) [k = y] + epsilon / V
(Szegedy et al. 2016, arXiv:1512.00567), and the loss of a token with logits z is

    -sum_k q(k) log p(k) = logsumexp(z) - (1 - epsilon) z_y - epsilon mean(z),   gradient dL/dz = softmax(z) - q.

Logits of all tokens are the largest tensor of a small model: 25,000 tokens x 37,000 classes in float32 are 3.7 GB.
Here the output layer and the loss run together on a few tokens at a time, and since the gradient is known in closed
form it is computed in the same pass: nothing is stored but the gradients of the hidden states and of the weight.
"""

import torch
from torch.nn.functional import cross_entropy

IGNORE_INDEX = -100
LEAST_CHUNK = 512  # tokens, on a CPU


def shift_tokens_right(
    labels: torch.Tensor, pad_token_id: int, decoder_start_token_id: int, position_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Make the decoder's input from the target: at each position it may see the tokens before it (paper, section 3.1).

    Args:
        labels: (batch, target_len), padded with -100 or `pad_token_id`.
        position_ids: (batch, target_len), for packed rows: each segment begins with 0.

    Returns:
        (batch, target_len): the start token, then all labels but the last; the same for each segment of a row.
    """
    shifted = torch.cat([labels.new_full((labels.shape[0], 1), decoder_start_token_id), labels[:, :-1]], dim=-1)
    if position_ids is not None:
        shifted = shifted.masked_fill(position_ids == 0, decoder_start_token_id)
    return shifted.masked_fill(shifted == IGNORE_INDEX, pad_token_id)  # (batch, target_len)


def number_of_labels(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor | int:
    """Return what a sum over labels is divided by: never 0, so that a batch without labels has the loss 0, not NaN.

    Args:
        labels: Of any shape; -100 is not counted.
        num_items_in_batch: The number, if the caller knows it: that of all batches that make up a step.
    """
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORE_INDEX).sum()
    elif isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(labels.device)
    return num_items_in_batch + (num_items_in_batch == 0)


def loss_of_logits(
    logits: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Return the sum of the cross-entropies of labels, divided by their number.

    Args:
        logits: (..., classes).
        labels: (...); -100 is ignored.
        label_smoothing, num_items_in_batch: As in `linear_cross_entropy`.
    """
    flat = logits.flatten(0, -2)  # (labels, classes)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    total = cross_entropy(
        flat, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    return total / number_of_labels(labels, num_items_in_batch)


LEAST_SHARE = 1e-30  # of a label, from which the logarithm of its softmax can still be told


def exponentiate(logits: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Compute softmax(z) = powers / total, in place of the logits.

    On a CPU torch's own kernel reads them once, where three operations would read them three times. It tells no
    logsumexp(z), but that is z_y - log softmax(z)_y, unless a label is so unlikely that its share is rounded to 0:
    which has to be looked at, and one graph for the compiler cannot.

    Args:
        logits: (tokens, vocab_size), overwritten.
        label: (tokens, 1).

    Returns:
        The powers (tokens, vocab_size); in float32 or wider their total (tokens, 1), and logsumexp(z) (tokens, 1) or
        None where it has to be computed from the logits.
    """
    wide, vocab_size = torch.promote_types(logits.dtype, torch.float32), logits.shape[1]
    is_seen = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_seen and torch.finfo(logits.dtype).tiny < LEAST_SHARE:
        label_logit = logits.gather(-1, label).to(wide)  # (tokens, 1)
        shares = torch.softmax(logits, -1, out=logits)  # (tokens, vocab_size)
        label_share = shares.gather(-1, label).to(wide)  # (tokens, 1)
        is_told = not (label_share < LEAST_SHARE).any()
        return shares, torch.ones_like(label_logit), label_logit - label_share.log() if is_told else None
    largest = logits.amax(-1, keepdim=True)  # (tokens, 1)
    powers = logits.sub_(largest).exp_()  # (tokens, vocab_size)
    # In 16 bits a sum over the vocabulary would be rounded. So 64 parts are summed in 16 bits, their sums in float32.
    parts = torch.eye(64, dtype=logits.dtype, device=logits.device).repeat(-(-vocab_size // 64), 1)[:vocab_size]
    sums = powers if logits.dtype == wide else powers @ parts
    total = sums.sum(-1, keepdim=True, dtype=wide)  # (tokens, 1)
    return powers, total, largest.to(wide) + total.log()


def gradient_of_labels(
    hidden_states: torch.Tensor, labels: torch.Tensor, factor: float, vocab_size: int
) -> torch.Tensor:
    """Sum `factor * hidden_states` over the tokens of each label: not in 16 bits, which would round 0.9 to 0.898.

    Args:
        hidden_states: (tokens, d_model).
        labels: (tokens,); -100 is not counted.

    Returns:
        (vocab_size, d_model), in float32 or wider.
    """
    kept = labels != IGNORE_INDEX
    wide = torch.promote_types(hidden_states.dtype, torch.float32)
    parts = hidden_states.to(wide) * kept.to(wide).mul_(factor).unsqueeze(-1)  # (tokens, d_model)
    return torch.ops.aten.embedding_dense_backward(parts, labels.where(kept, 0), vocab_size, -1, False)


class _LinearCrossEntropySum(torch.autograd.Function):
    """Sum the losses of all kept tokens; the gradients are computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx, hidden_states, weight, labels, label_smoothing, chunk_size, needs_grad):
        device_type = hidden_states.device.type
        dtype = (
            torch.get_autocast_dtype(device_type)
            if torch.is_autocast_enabled(device_type)
            else torch.promote_types(hidden_states.dtype, weight.dtype)
        )
        wide = torch.promote_types(dtype, torch.float32)
        vocab_size = weight.shape[0]
        loss = hidden_states.new_zeros((), dtype=wide)
        if needs_grad:
            grad_hidden_states = torch.empty_like(hidden_states)
            grad_weight = gradient_of_labels(hidden_states, labels, label_smoothing - 1, vocab_size)
            hidden_sum = hidden_states.new_zeros(weight.shape[1], dtype=wide)  # of all kept tokens
        with torch.autocast(device_type, enabled=False):
            weight_cast = weight.to(dtype)
            weight_mean = weight.mean(0, dtype=wide)  # (d_model,): its product with h is the mean of z
            # Overwritten by each chunk: fresh memory would cost a CPU a page fault every 4 KiB.
            buffer = weight_cast.new_empty(min(chunk_size, len(labels)), vocab_size)
            for start in range(0, len(labels), chunk_size):
                chunk = slice(start, start + chunk_size)
                hidden = hidden_states[chunk].to(dtype)  # (chunk, d_model)
                kept = (labels[chunk] != IGNORE_INDEX).unsqueeze(-1)  # (chunk, 1)
                label = labels[chunk].unsqueeze(-1).where(kept, 0)  # (chunk, 1)
                logits = torch.mm(hidden, weight_cast.T, out=buffer[: len(label)])  # (chunk, vocab_size)
                label_logit = logits.gather(-1, label).to(wide)  # (chunk, 1)
                powers, total, log_sum = exponentiate(logits, label)
                if log_sum is None:
                    log_sum = torch.mm(hidden, weight_cast.T).to(wide).logsumexp(-1, keepdim=True)  # (chunk, 1)
                losses = log_sum - (1 - label_smoothing) * label_logit
                if label_smoothing:
                    losses -= label_smoothing * (hidden.to(wide) @ weight_mean).unsqueeze(-1)
                loss += losses.where(kept, 0).sum()
                if needs_grad:
                    scale = kept / total  # (chunk, 1): cheaper on d_model values than on vocab_size
                    expected = (1 - label_smoothing) * weight[label.squeeze(-1)].to(
                        wide
                    ) + label_smoothing * weight_mean  # q W
                    grad_hidden_states[chunk] = (powers @ weight_cast) * scale - expected * kept
                    grad_weight += powers.T @ (hidden * scale).to(dtype)
                    hidden_sum += hidden.mul(kept).sum(0)
        if needs_grad:
            if label_smoothing:
                grad_weight -= label_smoothing / vocab_size * hidden_sum
            ctx.save_for_backward(grad_hidden_states, grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        grad_hidden_states, grad_weight = ctx.saved_tensors
        grad_loss = grad_loss.to(grad_weight.dtype)
        return grad_hidden_states * grad_loss.to(grad_hidden_states.dtype), grad_weight * grad_loss, *[None] * 4


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: torch.Tensor | int | None = None,
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Project hidden states onto the vocabulary and compare with the labels, a chunk of tokens at a time.

    Equals `cross_entropy(linear(hidden_states, weight), labels, label_smoothing=...)` of torch, without its memory.

    Args:
        hidden_states: (..., d_model).
        weight: Output layer, (vocab_size, d_model).
        labels: (...), in [0, vocab_size) or -100 = ignored.
        label_smoothing: epsilon, in [0, 1).
        num_items_in_batch: Divide the sum over tokens by this number, so that the loss is the same however a batch is
            cut into smaller ones; the number of tokens that are not ignored when None. 0 counts as 1.
        chunk_size: Number of tokens whose logits exist at one time. By default 8.3 million logits on a CPU (in float32
            less than 32 MiB, see `keep_freed_memory`), but at least 512 tokens: each chunk adds to the gradient of
            the whole weight. On a GPU 64 million, which gives it enough to do.

    Returns:
        Scalar of float32 (float64 for float64 input); 0 when every label is ignored.
    """
    labels = labels.reshape(-1)  # (tokens,)
    hidden_states = hidden_states.reshape(len(labels), -1)  # (tokens, d_model)
    if chunk_size is None:
        is_cpu = weight.device.type == "cpu"
        chunk_size = max(LEAST_CHUNK if is_cpu else 1, (8_300_000 if is_cpu else 2**26) // len(weight))
    # Inside the function torch.no_grad() cannot be seen any more.
    needs_grad = torch.is_grad_enabled() and (hidden_states.requires_grad or weight.requires_grad)
    total = _LinearCrossEntropySum.apply(hidden_states, weight, labels, label_smoothing, chunk_size, needs_grad)
    return total / number_of_labels(labels, num_items_in_batch)
