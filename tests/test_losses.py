"""linear_cross_entropy, which never holds the logits of all tokens, against torch's cross-entropy, which does."""

import pytest
import torch
from torch.nn import functional as F

from fun_transformer.losses import linear_cross_entropy

CHUNK_SIZES = pytest.mark.parametrize("chunk_size", [1, 4, 11, 64])  # of 11 tokens: an uneven last chunk, one chunk
SMOOTHINGS = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])


def example(dtype=torch.float64, tokens=11, vocab_size=13):
    """Hidden states (tokens, 8), weight (vocab_size, 8), both with gradient, and labels, some of them ignored."""
    hidden_states = torch.randn(tokens, 8).to(dtype).requires_grad_()
    weight = torch.randn(vocab_size, 8).to(dtype).requires_grad_()
    labels = torch.randint(0, vocab_size, (tokens,))
    labels[[0, 5, 9]] = -100
    return hidden_states, weight, labels


def torchs_loss(hidden_states, weight, labels, label_smoothing=0.0, reduction="mean"):
    logits = F.linear(hidden_states, weight)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction=reduction)


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@CHUNK_SIZES
@SMOOTHINGS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradients_equal_torchs(dtype, tolerance, label_smoothing, chunk_size):
    hidden_states, weight, labels = example(dtype)
    loss = linear_cross_entropy(hidden_states, weight, labels, label_smoothing, chunk_size=chunk_size)
    expected = torchs_loss(hidden_states, weight, labels, label_smoothing)
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        gradients(3 * loss, hidden_states, weight),
        gradients(3 * expected, hidden_states, weight),
        atol=10 * tolerance,
        rtol=10 * tolerance,
    )


def test_gradients_equal_finite_differences():
    hidden_states, weight, labels = example()
    assert torch.autograd.gradcheck(
        lambda *tensors: linear_cross_entropy(*tensors, labels, 0.1, chunk_size=4), (hidden_states, weight)
    )


def test_batches_of_sentences_are_flattened():
    hidden_states, weight, labels = example(tokens=12)
    expected = linear_cross_entropy(hidden_states, weight, labels, 0.1)
    loss = linear_cross_entropy(hidden_states.view(3, 4, 8), weight, labels.view(3, 4), 0.1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("count", [20, torch.tensor(20)])
def test_num_items_in_batch_divides_the_sum(count):
    hidden_states, weight, labels = example()
    loss = linear_cross_entropy(hidden_states, weight, labels, 0.1, num_items_in_batch=count)
    expected = torchs_loss(hidden_states, weight, labels, 0.1, reduction="sum") / 20
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, hidden_states, weight), gradients(expected, hidden_states, weight))


@SMOOTHINGS
@pytest.mark.parametrize("count", [None, 0, torch.tensor(0), 7], ids=str)
def test_nothing_but_ignored_labels_gives_zero(count, label_smoothing):
    hidden_states, weight, labels = example()
    loss = linear_cross_entropy(hidden_states, weight, labels.fill_(-100), label_smoothing, count)
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(loss, hidden_states, weight))


def test_ignored_hidden_states_may_be_anything():
    """Even infinity: padding must not reach the loss."""
    hidden_states, weight, labels = example()
    expected = linear_cross_entropy(hidden_states, weight, labels, 0.1)
    with torch.no_grad():
        hidden_states[5] = 1e30
    loss = linear_cross_entropy(hidden_states, weight, labels, 0.1)
    torch.testing.assert_close(loss, expected)
    gradient, gradient_weight = gradients(loss, hidden_states, weight)
    assert not gradient[5].any() and gradient_weight.isfinite().all()


def test_large_logits_do_not_overflow():
    hidden_states, weight, labels = example(torch.float32)
    loss = linear_cross_entropy(hidden_states * 1e4, weight, labels, 0.1)
    torch.testing.assert_close(loss, torchs_loss(hidden_states * 1e4, weight, labels, 0.1))
    assert all(gradient.isfinite().all() for gradient in gradients(loss, hidden_states, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    hidden_states, weight, labels = example(dtype, tokens=600)
    loss = linear_cross_entropy(hidden_states, weight, labels, 0.1, chunk_size=100)
    assert loss.dtype == torch.float32
    exact = [tensor.detach().float().requires_grad_() for tensor in (hidden_states, weight)]
    expected = torchs_loss(*exact, labels, 0.1)
    torch.testing.assert_close(loss, expected, atol=0.01, rtol=0.01)
    for found, wanted in zip(gradients(loss, hidden_states, weight), gradients(expected, *exact)):
        assert found.dtype == dtype
        assert (found.float() - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_bf16_autocast_gives_float32_gradients_to_the_weight(hidden_dtype):
    hidden_states, weight, labels = example(torch.float32, tokens=200)
    hidden_states = hidden_states.detach().to(hidden_dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden_states, weight, labels, 0.1, chunk_size=64)
    exact = [tensor.detach().float().requires_grad_() for tensor in (hidden_states, weight)]
    expected = torchs_loss(*exact, labels, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = linear_cross_entropy(hidden_states, weight, labels, chunk_size=64)
    rounded = linear_cross_entropy(hidden_states.bfloat16(), weight.bfloat16(), labels, chunk_size=64)
    assert loss.dtype == plain.dtype == torch.float32
    assert torch.equal(plain, rounded), "the matrix products are not done in bfloat16"
    torch.testing.assert_close(loss, expected, atol=0.01, rtol=0.01)
    found = gradients(loss, hidden_states, weight)
    assert [gradient.dtype for gradient in found] == [hidden_dtype, torch.float32]
    for gradient, wanted in zip(found, gradients(expected, *exact)):
        assert (gradient.float() - wanted).norm() < 0.02 * wanted.norm()


def test_labels_count_alike_in_bf16():
    """0.9 as a bfloat16 is 0.898: the gradient of a bias that all classes share must be 0 all the same."""
    hidden_states = torch.ones(500, 8, requires_grad=True)
    weight = torch.zeros(16, 8, requires_grad=True)  # shares of 1 / 16, without rounding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear_cross_entropy(hidden_states, weight, torch.arange(500) % 16, 0.1).backward()
    assert weight.grad.sum().abs() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_label_whose_share_is_rounded_to_zero_has_its_full_loss(dtype):
    hidden_states = torch.tensor([[400.0, 0.0], [0.0, 1.0]], dtype=dtype)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype)
    loss = linear_cross_entropy(hidden_states, weight, torch.tensor([1, 1]), num_items_in_batch=1)
    torch.testing.assert_close(loss, torch.tensor(400.3133), atol=1e-3, rtol=0)


@pytest.mark.parametrize("frozen", ["hidden_states", "weight", "both"])
def test_what_is_frozen_gets_no_gradient(frozen):
    hidden_states, weight, labels = example()
    expected = gradients(torchs_loss(hidden_states, weight, labels), hidden_states, weight)
    hidden_states.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden_states")
    loss = linear_cross_entropy(hidden_states, weight, labels)
    assert loss.requires_grad == (frozen != "both")
    if frozen == "weight":
        torch.testing.assert_close(gradients(loss, hidden_states)[0], expected[0])
    if frozen == "hidden_states":
        torch.testing.assert_close(gradients(loss, weight)[0], expected[1])


def test_inputs_are_not_changed():
    hidden_states, weight, labels = example()
    before = [tensor.detach().clone() for tensor in (hidden_states, weight, labels)]
    linear_cross_entropy(hidden_states, weight, labels, 0.1).backward()
    for tensor, expected in zip((hidden_states, weight, labels), before):
        assert torch.equal(tensor, expected)


class Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps what operations return, forward and backward."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        found = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        self.tensors += [output for output in found if isinstance(output, torch.Tensor)]
        return outputs


@pytest.fixture
def watched():
    """Tensors of a loss of 64 tokens and 50 classes, 16 tokens at a time."""
    hidden_states, weight, labels = example(tokens=64, vocab_size=50)
    with Watch() as watch:
        linear_cross_entropy(hidden_states, weight, labels, 0.1, chunk_size=16).backward()
    return watch.tensors


def test_the_logits_of_all_tokens_never_exist_at_once(watched):
    """No operation, forward or backward, makes a tensor as large as (tokens, vocab_size)."""
    assert max(tensor.numel() for tensor in watched) == 16 * 50


def test_all_chunks_write_their_logits_to_the_same_place(watched):
    places = {tensor.untyped_storage().data_ptr() for tensor in watched if tensor.shape == (16, 50)}
    assert len(places) == 1, "there is more than one tensor of logits"
