"""What the museum shows: one mistake in each model, and the check that finds it before any training.

A broken model differs from `SmallTransformer` in a method or two. Each of them runs, most of them learn something, and
none raises an error. docs/museum.md is made of this file.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from course.museum.model import IGNORED, PAD, SmallTransformer, make_batch

# ── the broken models ──


class SeesTheAnswer(SmallTransformer):
    def target_mask(self, length):
        return torch.ones(length, length, dtype=torch.bool)


class RowsOfMinusInfinity(SmallTransformer):
    def source_mask(self, source):
        is_token = source != PAD
        return (is_token[:, :, None] & is_token[:, None, :])[:, None]  # (batch, 1, source_len, source_len)

    def weigh(self, scores, may_attend):
        return scores.masked_fill(~may_attend, float("-inf")).softmax(-1)


class LabelsNotShifted(SmallTransformer):
    def decoder_inputs(self, labels):
        return labels.masked_fill(labels == IGNORED, PAD)


class LabelsShiftedTwice(SmallTransformer):
    def loss(self, logits, labels):
        logits, labels = logits[:, :-1], labels[:, 1:]  # decoder_inputs has shifted them already
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


class PositionsByBatch(SmallTransformer):
    def positions(self, ids, first=0):
        return self.encode_places(torch.arange(ids.shape[0]))[:, None]  # (batch, 1, d_model): pe[: x.size(0)]


class EmbeddingsNotScaled(SmallTransformer):
    def embed(self, ids):
        return self.embedding(ids)


class PaddingAttendedTo(SmallTransformer):
    def source_mask(self, source):
        return torch.ones(source.shape[0], 1, 1, source.shape[1], dtype=torch.bool)


class NormInForward(SmallTransformer):
    def add_and_norm(self, number, states, added):
        return nn.LayerNorm(self.d_model)(states + added)


class LossCountsPadding(SmallTransformer):
    def loss(self, logits, labels):
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.masked_fill(labels == IGNORED, PAD).flatten())


class CacheWithoutPositions(SmallTransformer):
    def place_of(self, step):
        return 0  # a step reads one token, and the first token it reads is at place 0


class TiedWeightsComeApart(SmallTransformer):
    def save(self, path):
        weights = self.state_dict()
        del weights["output.weight"]  # it is the embedding's
        torch.save(weights, path)

    def load(self, path):
        weights = torch.load(path)
        self.embedding = nn.Embedding.from_pretrained(weights["embedding.weight"], freeze=False)
        self.load_state_dict(weights, strict=False)


# ── the checks: each takes a class, makes a model of random weights, and is False where the mistake is ──


def build(kind: type[SmallTransformer]) -> tuple[SmallTransformer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return kind(), *make_batch(4, torch.Generator().manual_seed(0))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def no_logit_depends_on_its_own_label(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    other = labels.clone()
    other[:, 2] = 5 + (labels[:, 2] == 5).long()  # any other token
    return close(model(source, other)[:, :3], model(source, labels)[:, :3])


def rows_with_padding_are_finite(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    return bool(model(source, labels).isfinite().all())


def a_right_answer_costs_nothing(kind: type[SmallTransformer]) -> bool:
    model, _, labels = build(kind)
    sure = 100.0 * nn.functional.one_hot(labels.clamp(min=0), 13)  # logits that say each label
    return model.loss(sure, labels).item() < 0.01


def rows_may_change_places(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    return close(model(source.flip(0), labels.flip(0)).flip(0), model(source, labels))


def embeddings_are_as_large_as_positions(kind: type[SmallTransformer]) -> bool:
    model, source, _ = build(kind)
    return 0.5 < (model.embed(source).std() / model.positions(source).std()).item() < 2


def padding_changes_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    longer = nn.functional.pad(source, (0, 3), value=PAD)
    return close(model(longer, labels), model(source, labels))


def every_parameter_is_trained(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    model.loss(model(source, labels), labels).backward()
    return all(parameter.grad is not None for parameter in model.parameters())


def padding_costs_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    logits = model(source, labels)
    longer, more = nn.functional.pad(labels, (0, 3), value=IGNORED), nn.functional.pad(logits, (0, 0, 0, 3))
    return close(model.loss(more, longer), model.loss(logits, labels))


def a_cache_changes_nothing(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    target, encoded = labels.clamp(min=PAD)[:, :3], model.encode(source)
    past: dict[str, torch.Tensor] = {}
    steps = [model.decode(target[:, i : i + 1], encoded, source, past, model.place_of(i)) for i in range(3)]
    return close(torch.cat(steps, dim=1), model.decode(target, encoded, source))


def a_saved_model_comes_back(kind: type[SmallTransformer]) -> bool:
    model, source, labels = build(kind)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.pt"))
        loaded = kind()
        loaded.load(Path(folder, "model.pt"))
    return close(loaded(source, labels), model(source, labels)) and loaded.output.weight is loaded.embedding.weight


# ── the rooms ──


class Exhibit(NamedTuple):
    """A mistake that people make.

    Attributes:
        title: In Chinese and in English.
        broken: The model that makes it.
        check: False for that model, True for the right one.
        symptom: What is seen, in Chinese and in English.
        mend: In Chinese and in English.
    """

    title: tuple[str, str]
    broken: type[SmallTransformer]
    check: Callable[[type[SmallTransformer]], bool]
    symptom: tuple[str, str]
    mend: tuple[str, str]

    @property
    def methods(self) -> list[str]:
        """The methods that differ from the right ones."""
        return [name for name in vars(self.broken) if not name.startswith("__")]


EXHIBITS = [
    Exhibit(
        ("看到了答案的掩码", "A mask that lets the model see the answer"),
        SeesTheAnswer,
        no_logit_depends_on_its_own_label,
        (
            "训练的损失和准确率都完美，生成的文本却没有一条是对的：训练时模型照抄后面的词，生成时后面还没有词。",
            "Loss and accuracy in training are perfect, and not one text that is generated is right: in "
            "training the model copies the tokens that follow, in use there are none yet.",
        ),
        (
            "解码器的掩码用 tril：第 i 个词只能看第 0 到 i 个。只看训练时的准确率发现不了，要看生成的结果。",
            "The mask of a decoder is lower triangular: token i sees tokens 0 to i. Accuracy in training does not "
            "show the mistake, what is generated does.",
        ),
    ),
    Exhibit(
        ("全是 -inf 的行", "Rows of -inf"),
        RowsOfMinusInfinity,
        rows_with_padding_are_finite,
        (
            "从第一步起损失就是 NaN，再也没有变过。",
            "The loss is NaN from the first step on, for ever.",
        ),
        (
            "只遮住作为键的填充，不要遮住作为查询的填充；并且用最小的有限数代替 -inf，"
            "这样没有键可看的行得到相同的权重，而不是 NaN。",
            "Hide padding as keys, not as queries; and fill in the smallest finite number, so that a row with "
            "nothing to look at gets equal weights in place of NaN.",
        ),
    ),
    Exhibit(
        ("标签没有右移", "Labels that are not shifted"),
        LabelsNotShifted,
        no_logit_depends_on_its_own_label,
        (
            "损失几乎是 0，准确率 100%，比没有错误的模型学得还快；生成的文本全错。解码器读到的正是它要预测的词。",
            "A loss of almost 0 and an accuracy of 100 %, faster than the right model; all that is generated is "
            "wrong. The decoder reads the very tokens that it has to predict.",
        ),
        (
            "解码器读 <s> 和前面的词，预测这个位置的词。",
            "The decoder reads <s> and the tokens before, and predicts the one at this place.",
        ),
    ),
    Exhibit(
        ("标签右移了两次", "Labels that are shifted twice"),
        LabelsShiftedTwice,
        a_right_answer_costs_nothing,
        (
            "损失下降得和没有错误时一样。但模型学会的是下下个词，第一个词从来没有学过，生成的文本全错。",
            "The loss falls as that of the right model. But what was learned is the token after the next one, "
            "and never the first: all that is generated is wrong.",
        ),
        (
            "只在一个地方右移：要么在输入，要么在损失。用 transformers 时，传给模型的 labels 不要自己先右移。",
            "Shift in one place, in the inputs or in the loss. With transformers, do not shift the labels that a "
            "model is given.",
        ),
    ),
    Exhibit(
        ("按批次下标取位置", "Positions by the number of the row"),
        PositionsByBatch,
        rows_may_change_places,
        (
            "损失停在高处：同一句话里的词位置都相同，模型知道有哪些数字，却不知道顺序。批次里换一行，结果就变。",
            "The loss stays high: all tokens of a text have one place, so the model knows which digits there "
            "are, not their order. In another row of the batch a text means something else.",
        ),
        (
            "位置是第 1 维（词），不是第 0 维（批次）。换成 batch_first 的代码时最容易犯这个错。",
            "Positions follow the axis of tokens, not that of the batch. It happens when code for (length, batch) "
            "gets (batch, length).",
        ),
    ),
    Exhibit(
        ("词嵌入没有乘 sqrt(d)", "Embeddings without sqrt(d)"),
        EmbeddingsNotScaled,
        embeddings_are_as_large_as_positions,
        (
            "这里什么也看不出来，损失甚至更低。这样的错误只有测试能发现：刚开始时，词嵌入比加上去的位置编码小好几倍。",
            "Nothing is seen here, the loss is even lower. It is a mistake that only a test finds: embeddings begin "
            "several times smaller than the positions that are added to them.",
        ),
        (
            "与输出层共享的词嵌入初始化得很小（标准差 1/sqrt(d)），加位置之前要乘以 sqrt(d)（论文 3.4 节）。",
            "Embeddings that are shared with the output layer begin small, with a spread of 1 / sqrt(d): multiply "
            "them by sqrt(d) before positions are added (section 3.4).",
        ),
    ),
    Exhibit(
        ("看到了填充", "Padding that is attended to"),
        PaddingAttendedTo,
        padding_changes_nothing,
        (
            "和训练时一样成批生成，全对；一句一句生成，大多数错了：模型习惯了看填充，而单独一句没有填充。",
            "In batches, as in training, all is right; one by one most is wrong: the model has got used to the "
            "padding that it looks at, and a text alone has none.",
        ),
        (
            "编码器的自注意力和解码器的交叉注意力都要遮住源句的填充。",
            "Hide the padding of the source in the encoder's attention and in cross-attention.",
        ),
    ),
    Exhibit(
        ("在 forward 里创建 LayerNorm", "A LayerNorm made inside forward"),
        NormInForward,
        every_parameter_is_trained,
        (
            "什么也看不出来：新建的 LayerNorm 的权重是 1 和 0，和没有训练过的一样好用。"
            "但它的参数从来没有被训练，也不会被保存；在更难的任务上会少了这些参数。",
            "Nothing is seen: a fresh LayerNorm has weights of 1 and 0 and works. But its parameters are never "
            "trained nor saved, and a harder task would miss them.",
        ),
        (
            "层在 __init__ 里创建，在 forward 里使用。",
            "Make layers in __init__ and use them in forward.",
        ),
    ),
    Exhibit(
        ("损失把填充也算进去了", "A loss that counts padding"),
        LossCountsPadding,
        padding_costs_nothing,
        (
            "文本全对，但损失偏低，过于乐观：填充很容易预测，批次里填充越多，损失越低。"
            "换一种凑批次的办法，损失和困惑度就变了，不能和别人的比较。",
            "All texts are right, but the loss is too good to be true: padding is easy to predict, and the more of it "
            "there is in a batch, the lower the loss. With other batches loss and perplexity change, and they "
            "compare with nobody's.",
        ),
        (
            "填充处的标签是 -100，损失用 ignore_index=-100。",
            "Labels of padding are -100, and the loss has ignore_index=-100.",
        ),
    ),
    Exhibit(
        ("用缓存生成时位置总是 0", "A cache without positions"),
        CacheWithoutPositions,
        a_cache_changes_nothing,
        (
            "训练时一切正常，生成的文本却没有一条是对的：从第二步起，读到的每个词都以为自己在第 0 个位置。",
            "Training is as it should be, and not one text that is generated is right: from the second step on, each "
            "token that is read takes itself for the first one.",
        ),
        (
            "有缓存时每步只读一个词，它的位置是已经读过的词数，不是 0。",
            "With a cache a step reads one token, whose place is the number of tokens read before, not 0.",
        ),
    ),
    Exhibit(
        ("存取之后分开了的共享权重", "Tied weights that come apart"),
        TiedWeightsComeApart,
        a_saved_model_comes_back,
        (
            "存之前全对，读入之后全错：词嵌入换成了新的，输出层还是随机的。接着训练，两者就各走各的路。",
            "All is right before saving and wrong after loading: the embedding is new, and the output layer "
            "still has its random weights. Trained on, the two drift apart.",
        ),
        (
            "读入之后再共享一次（transformers 的 tie_weights），并比较存取前后的 logits。",
            "Tie the weights again after loading (tie_weights of transformers), and compare logits before and after.",
        ),
    ),
]
