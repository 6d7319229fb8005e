"""What differs between tasks, and nothing else: how rows become ids, how batches are made, what is scored.

| objective | source | target | learns |
| --- | --- | --- | --- |
| seq2seq | a text | a text | to write the target (the Transformer of the paper) |
| denoising | a text | - | to write the text again from what noise left of it (Lewis et al. 2020, arXiv:1910.13461) |
| masked_lm | a text | - | to fill in hidden tokens (Devlin et al. 2019, arXiv:1810.04805) |
| causal_lm | a text | - | to go on (Radford et al. 2018) |
| sequence_classification | a text | its label | to label texts |
| token_classification | words | as many tags | to label words |

The training loop is the same for all: a model gives the loss of a batch, divided by the number of its items.
"""

import random
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from tokenizers import decoders
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import kl_div
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForLanguageModeling,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from ..analysis import flops_per_token
from ..configuration_fun_transformer import FunTransformerConfig
from ..decoding.sequences import decoder_input
from ..tokenization_fun_transformer import FunTransformerTokenizer
from .data.batches import pad_batch
from .data.infilling import hide_spans
from .data.report import RowReport
from .data.tokenizing import tokenize_splits
from .metrics import label_scores, tag_scores
from .recipe.arguments import DataArguments, GenerationArguments, RunArguments, TrainingArguments
from .tables import register_objective

logger = logging.get_logger(__name__)


def r_drop_loss(model, batch: dict[str, torch.Tensor], items: float, alpha: float) -> torch.Tensor:
    """R-Drop: two passes with different dropout must predict alike (Liang et al. 2021, arXiv:2106.14448).

    With the predictions p and q of the two passes, half the loss of the paper: (CE_p + CE_q) / 2 +
    alpha (KL(p || q) + KL(q || p)) / 4, where the sum of both divergences is sum_k (p_k - q_k) (log p_k - log q_k).

    Args:
        model: Gives `loss` and `logits` (batch, target_len, vocab_size).
        batch: With `labels` (batch, target_len).
        items: What the sum over labels is divided by.
        alpha: Weight of the divergence; 5 in the paper's translation experiments.
    """
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}
    outputs = model(**twice, num_items_in_batch=2 * items, skip_logits=False)
    kept = batch["labels"] != -100  # (batch, target_len)
    p, q = (half[kept].float().log_softmax(-1) for half in outputs.logits.chunk(2))  # (labels, vocab_size)
    divergence = ((p.exp() - q.exp()) * (p - q)).sum()
    return outputs.loss + alpha * divergence / (4 * items)


def scheduled_sampling_loss(model, batch: dict[str, torch.Tensor], items: float, probability: float) -> torch.Tensor:
    """The decoder reads some of the model's own tokens, as it will when it generates.

    Teacher forcing shows a decoder only true prefixes, so it never learns to go on from its own mistakes. Scheduled
    sampling (Bengio et al. 2015, arXiv:1506.03099) puts predicted tokens into the prefix. A Transformer reads all
    positions at once, so it takes two passes (Mihaylova and Martins 2019, arXiv:1906.07651): the first, by teacher
    forcing and without gradients, predicts a token for every position; in the second, each true token is replaced by
    the best prediction for its place with the given probability. The labels stay the true ones.

    Args:
        model: Of the kind sequence to sequence.
        batch: With `labels` (batch, target_len).
        items: What the sum over labels is divided by.
        probability: Of replacing a token; the start token stays.
    """
    labels = batch["labels"]
    module = getattr(model, "module", model)  # inside DistributedDataParallel
    decoder_input_ids = module.prepare_decoder_input_ids_from_labels(labels)  # (batch, target_len)
    with torch.no_grad():
        source = {name: tensor for name, tensor in batch.items() if name != "labels"}
        predicted = model(**source, decoder_input_ids=decoder_input_ids).logits.argmax(-1)  # (batch, target_len)
    # What is predicted at t is read at t + 1. Padding is no label, and nothing before it sees what is read there.
    replaced = torch.rand(labels[:, 1:].shape, device=labels.device) < probability  # (batch, target_len - 1)
    mixed = decoder_input_ids.clone()
    mixed[:, 1:] = torch.where(replaced, predicted[:, :-1], decoder_input_ids[:, 1:])
    return model(**batch, decoder_input_ids=mixed, num_items_in_batch=items).loss


def word_distillation_loss(
    model, teacher, batch: dict[str, torch.Tensor], items: float, weight: float
) -> torch.Tensor:
    """Word-level distillation: predict at each position what a teacher predicts there (Kim and Rush 2016).

    With the teacher's distribution p and the student's q over the target vocabulary, the loss is
    (1 - weight) CE + weight KL(p || q), where KL(p || q) = sum_k p_k (log p_k - log q_k) has the gradient of the
    paper's cross-entropy -sum_k p_k log q_k, and is 0 where both agree.

    Args:
        model: The student; gives `loss` and `logits` (batch, target_len, vocab_size).
        teacher: An `Ensemble` of one or several models with the student's vocabulary.
        batch: With `input_ids`, `attention_mask` and `labels` (batch, target_len).
        items: What the sums over labels are divided by.
        weight: Of the teacher, in [0, 1].
    """
    labels = batch["labels"]
    kept = labels != -100  # (batch, target_len)
    with torch.no_grad():
        decoder_input_ids = decoder_input(teacher.models[0], labels, teacher.config.pad_token_id)
        taught = teacher(batch["input_ids"], batch["attention_mask"], decoder_input_ids).logits
        p = taught[kept].exp()  # (labels, vocab_size)
    outputs = model(**batch, num_items_in_batch=items, skip_logits=False)
    log_q = outputs.logits[kept].float().log_softmax(-1)  # (labels, vocab_size)
    divergence = kl_div(log_q, p, reduction="sum")
    return (1 - weight) * outputs.loss + weight * divergence / items


class Objective:
    """What is learned: how rows become ids and batches, what a loss is, what is scored.

    Derive from this class, or from one below, and name it with `register_objective`; everything else of a run is the
    same for all.

    Args:
        splits: Rows with `source` and `target`.
        settings: The recipe's section `training`.

    Attributes:
        name: What a recipe calls it.
        modality: What a source is: "text", or a file of "speech" or an "image".
        model_class: Auto class of the models that learn this.
        pipeline: The pipeline that they are used with.
        has_targets: Whether the target is a text of its own; else the source is all there is.
        counts_targets: Whether labels are tokens beside those of the source, and count as such.
        generates: Whether it is scored by texts that it generates ...
        predicts: ... or by labels that it predicts.
        predicts_next: Whether the labels are the input itself, and each position predicts the next one.
        can_pack: Whether rows can hold several texts.
        takes_noise: Whether a source may have mistakes (`data.noise`): not where its words have labels.
        special_tokens: Those that a tokenizer must have; a finished one that lacks them gets them.
        options: Fields of the recipe's section `training` that only some objectives know.
        usual_metrics: What is measured on generated texts where the recipe says nothing and the texts do not matter.
        default_fields: Of a fresh model's config, where the recipe says nothing.
        evaluation_options: Keyword arguments of the model when its loss is measured, without label smoothing.
        teacher: The models of `training.teacher` as one, on the run's device; None without.
    """

    name: str
    modality = "text"
    model_class: Any = AutoModelForSeq2SeqLM
    pipeline = "text2text-generation"
    has_targets = True
    counts_targets = False
    generates = False
    predicts = False
    predicts_next = False
    can_pack = False
    takes_noise = False
    special_tokens: tuple[str, ...] = ("pad_token",)
    options: frozenset[str] = frozenset()
    usual_metrics: tuple[str, ...] = ()
    default_fields: dict[str, Any] = {}
    evaluation_options: dict[str, Any] = {"label_smoothing": 0.0, "skip_logits": True}
    teacher: Any = None

    def __init__(self, splits: DatasetDict, settings: TrainingArguments):
        self.settings = settings

    @classmethod
    def measured(cls, generation: GenerationArguments) -> list[str]:
        """Name the scores that an evaluation gives beside the loss."""
        return list(generation.metrics) if cls.generates else []

    def config_fields(self) -> dict[str, Any]:
        """Name what the objective adds to the model's configuration."""
        return {}

    def read_config(self, config: PreTrainedConfig) -> None:
        """Take over what `config_fields` gave to a model that has been trained."""

    def read_sources(self, config: PreTrainedConfig, arguments: RunArguments) -> None:
        """Make what reads the files of sources, where they are files.

        Args:
            config: With the model's front end.
            arguments: The recipe.
        """

    def save_files(self, folder: Path) -> None:
        """Save what reads the files of sources beside the model."""

    def texts(self, train: Dataset) -> dict[str, Any]:
        """Choose what a tokenizer is trained on: `texts`, and `targets` where the target is text too."""
        return {"texts": train["source"][:]}

    def prepare_tokenizer(self, tokenizer) -> None:
        """Change how the tokenizer frames a text."""

    def encode(self, batch: dict[str, list[str]], tokenizer) -> dict[str, list[list[int]]]:
        """Turn rows into `input_ids` and `labels`, both lists of ids."""
        raise NotImplementedError

    def prepare_rows(self, splits: DatasetDict, tokenizer, data: DataArguments) -> tuple[DatasetDict, RowReport]:
        """Turn sources and targets of all splits into numbers; refuse or drop those that are too long.

        Returns:
            The splits, and the report on their rows.

        Raises:
            ValueError: Rows are refused.
        """
        return tokenize_splits(splits, tokenizer, data, self.encode)

    def sizes(self, rows: Dataset) -> list[int]:
        """Return how long the source of each row is, in any unit: (rows,)."""
        return [len(text) for text in rows["source"]]

    def inputs(self, rows: Dataset, numbers: Sequence[int], tokenizer) -> dict[str, torch.Tensor]:
        """Make the model's input from the sources of some rows, to generate from.

        Args:
            rows: Of a split.
            numbers: Those of the chosen ones.
            tokenizer: Of the run.
        """
        texts = rows.select_columns("source")[list(numbers)]["source"]
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def refresh(self, rows: list[dict[str, Any]], draws: Iterable[str], tokenizer) -> list[dict[str, Any]]:
        """Change rows as this reading of them shows them, before they are collated or packed; they get no longer.

        Args:
            rows: With `input_ids` and `labels`, (length,) each.
            draws: Seeds of the random numbers for each row, made of the run's seed, the epoch and the row's number;
                so a resumed run sees the same, whatever the number of processes.
            tokenizer: Of the run.
        """
        return rows

    def collate(self, rows: list[dict[str, Any]], tokenizer) -> dict[str, torch.Tensor]:
        """Turn rows into tensors: `input_ids`, `attention_mask`, `labels`."""
        return pad_batch(rows, tokenizer.pad_token_id)

    def tokens(self, batch: dict[str, torch.Tensor]) -> int:
        """Count the real tokens of a batch, for the log."""
        return int(batch["attention_mask"].sum()) + (self.items(batch) if self.counts_targets else 0)

    def budget(self, target_lengths: np.ndarray) -> np.ndarray:
        """Count for each row the tokens that a batch holds beside those of the source: (rows,)."""
        return target_lengths if self.counts_targets else np.zeros_like(target_lengths)

    def items(self, batch: dict[str, torch.Tensor]) -> int:
        """Count the labels that the loss is a mean of."""
        return int((batch["labels"] != -100).sum())

    def loss(self, model, batch: dict[str, torch.Tensor], items: float, done: float) -> torch.Tensor:
        """Sum the losses of a batch, divided by the number of labels of all batches that make up a step.

        A loss of your own on logits asks the model for them: `model(**batch, skip_logits=False).logits`.

        Args:
            model: Wrapped as the engine wraps it.
            batch: Tensors on the model's device.
            items: What the sum is divided by.
            done: How much of the run is done, in [0, 1].
        """
        return model(**batch, num_items_in_batch=items).loss

    def predict(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> tuple[list[Any], list[Any]]:
        """Give the predicted and the true labels of a batch, as texts, where the objective predicts labels.

        Args:
            logits: (batch, labels), or (batch, source_len, labels).
            batch: What `collate` gave.
        """
        raise NotImplementedError

    def score(self, predicted: list[Any], true: list[Any]) -> dict[str, float]:
        """Compute scores of predicted labels, in percent; `measured` names them."""
        raise NotImplementedError

    def flops_per_token(self, model: PreTrainedModel, source_len: float, target_len: float) -> float:
        """Count the operations of a training step for each token: six a weight (Kaplan et al. 2020)."""
        return 6.0 * model.num_parameters(exclude_embeddings=True)


@register_objective
class Seq2Seq(Objective):
    """Write the target of a source, token by token, as the Transformer of the paper does."""

    name = "seq2seq"
    generates = True
    counts_targets = True
    can_pack = True
    takes_noise = True
    special_tokens: tuple[str, ...] = ("pad_token", "eos_token")
    options = frozenset({"r_drop", "scheduled_sampling", "teacher"})

    def texts(self, train):
        return {"texts": train["source"][:], "targets": train["target"][:]}

    def encode(self, batch, tokenizer):
        encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
        return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}

    def sampling_probability(self, done: float) -> float:
        """Give the probability of scheduled sampling, which rises with the run."""
        return (self.settings.scheduled_sampling or 0.0) * done

    def loss(self, model, batch, items, done):
        if self.teacher is not None:
            return word_distillation_loss(model, self.teacher, batch, items, self.settings.teacher_weight)
        if self.settings.r_drop is not None:
            return r_drop_loss(model, batch, items, self.settings.r_drop)
        if probability := self.sampling_probability(done):
            return scheduled_sampling_loss(model, batch, items, probability)
        return super().loss(model, batch, items, done)

    def flops_per_token(self, model, source_len, target_len):
        if isinstance(model.config, FunTransformerConfig):
            return flops_per_token(model.config, source_len, target_len)
        return super().flops_per_token(model, source_len, target_len)


@register_objective
class Denoising(Seq2Seq):
    """Write a text again of which spans are hidden: BART's pretraining of an encoder and a decoder together."""

    name = "denoising"
    has_targets = False
    generates = False
    special_tokens = ("pad_token", "eos_token", "mask_token")
    options = frozenset()

    def texts(self, train):
        return {"texts": train["source"][:]}

    def encode(self, batch, tokenizer):
        if getattr(tokenizer, "target_vocab_size", None) is not None:
            raise ValueError(
                "objective: denoising reads and writes the same texts, in one vocabulary, and this tokenizer has two. "
                "Leave tokenizer.target_vocab_size out; training.init_from finds the tokens again in two."
            )
        return super().encode(batch, tokenizer)

    def refresh(self, rows, draws, tokenizer):
        kept = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        pairs = zip(rows, draws, strict=True)
        return [
            row | {"input_ids": hide_spans(row["input_ids"], tokenizer.mask_token_id, kept, random.Random(draw))}
            for row, draw in pairs
        ]


@register_objective
class MaskedLM(Objective):
    """Predict 15 % of the tokens, of which 80 % are masked, 10 % replaced and 10 % kept."""

    name = "masked_lm"
    model_class = AutoModelForMaskedLM
    pipeline = "fill-mask"
    has_targets = False
    special_tokens = ("pad_token", "mask_token")

    def encode(self, batch, tokenizer):
        ids = tokenizer(batch["source"])["input_ids"]
        return {"input_ids": ids, "labels": ids}

    def collate(self, rows, tokenizer):
        batch = super().collate(rows, tokenizer)
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        batch["input_ids"], batch["labels"] = collator.torch_mask_tokens(batch["input_ids"], special)
        return batch


@register_objective
class CausalLM(Objective):
    """Predict each token from those before it: `<s> tokens </s>`."""

    name = "causal_lm"
    model_class = AutoModelForCausalLM
    pipeline = "text-generation"
    has_targets = False
    predicts_next = True
    special_tokens = ("pad_token", "bos_token", "eos_token")

    def prepare_tokenizer(self, tokenizer):
        # A prompt begins with <s> and does not end: the model goes on. What it adds is decoded alone, by
        # pipeline("text-generation"), so a leading space is a part of it and stays.
        if isinstance(tokenizer, FunTransformerTokenizer):  # those of other families know how theirs are decoded
            tokenizer.backend_tokenizer.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            )
        bos = tokenizer.bos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )

    def encode(self, batch, tokenizer):
        rows, end = tokenizer(batch["source"])["input_ids"], tokenizer.eos_token_id
        ids = [row if row[-1:] == [end] else [*row, end] for row in rows]
        return {"input_ids": ids, "labels": [[-100, *row[1:]] for row in ids]}


@register_objective
class SequenceClassification(Objective):
    """Predict one label for a text: the target."""

    name = "sequence_classification"
    model_class: Any = AutoModelForSequenceClassification
    pipeline = "text-classification"
    predicts = True
    takes_noise = True
    evaluation_options: dict[str, Any] = {}
    scored_by = "sklearn"  # a library that is asked for before the training, not at its first evaluation

    def __init__(self, splits, settings):
        super().__init__(splits, settings)
        if find_spec(self.scored_by) is None:
            raise ImportError(f"{self.scored_by} is not installed: pip install 'fun-transformer[train]'")
        self.labels = self.find_labels(splits) if "train" in splits else []

    @classmethod
    def measured(cls, generation):
        return ["accuracy", "f1"]

    def find_labels(self, splits: DatasetDict) -> list[str]:
        """List all labels of all splits, sorted: one that only a test set has counts as a mistake there.

        Raises:
            ValueError: When training has only one label, or shares none with another split.
        """
        found = {
            name: {label for target in split["target"] for label in self.split_target(target)}
            for name, split in splits.items()
        }
        known = found["train"]
        if len(known) < 2:
            raise ValueError(f"All rows of data.train have the label {known.pop()!r}: nothing to learn.")
        for name, labels in found.items():
            if not labels & known:
                raise ValueError(
                    f"data.{name} and data.train have no label in common: {min(labels)!r} there, {min(known)!r} here."
                )
            if unknown := sorted(labels - known):
                logger.warning(f"data.{name} has labels that no row of data.train has: {', '.join(unknown[:5])}.")
        return sorted(set().union(*found.values()))

    def split_target(self, target: str) -> list[str]:
        """Split a target into its labels."""
        return [target]

    def config_fields(self):
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }

    def read_config(self, config):
        self.labels = [config.id2label[number] for number in range(config.num_labels)]

    def encode(self, batch, tokenizer):
        numbers = {label: number for number, label in enumerate(self.labels)}
        ids = tokenizer(batch["source"])["input_ids"]
        return {"input_ids": ids, "labels": [[numbers[target]] for target in batch["target"]]}

    def collate(self, rows, tokenizer):
        batch = super().collate(rows, tokenizer)
        return batch | {"labels": batch["labels"].squeeze(-1)}  # (batch,)

    def predict(self, logits, batch):
        pairs = zip(logits.argmax(-1).tolist(), batch["labels"].tolist(), strict=True)
        predicted, true = zip(*((self.labels[p], self.labels[t]) for p, t in pairs), strict=True)
        return list(predicted), list(true)

    def score(self, predicted, true):
        return label_scores(predicted, true)


@register_objective
class TokenClassification(SequenceClassification):
    """Predict one tag for each word; the first token of a word carries it, the others are ignored."""

    name = "token_classification"
    model_class = AutoModelForTokenClassification
    pipeline = "token-classification"
    takes_noise = False
    scored_by = "seqeval"

    def split_target(self, target):
        return target.split()

    def encode(self, batch, tokenizer):
        numbers = {label: number for number, label in enumerate(self.labels)}
        words = [source.split() for source in batch["source"]]
        encoded = tokenizer(words, is_split_into_words=True)
        labels = []
        for row, target in enumerate(batch["target"]):
            tags = target.split()
            if len(tags) != len(words[row]):
                raise ValueError(
                    f"{len(words[row])} words and {len(tags)} tags: {batch['source'][row]!r}. Source and target must "
                    "be words and as many tags, with spaces between them."
                )
            owners = encoded.word_ids(row)
            first = [owner is not None and owner not in owners[:place] for place, owner in enumerate(owners)]
            labels.append([numbers[tags[o]] if f else -100 for o, f in zip(owners, first, strict=True)])
        return {"input_ids": encoded["input_ids"], "labels": labels}

    def collate(self, rows, tokenizer):
        return pad_batch(rows, tokenizer.pad_token_id)  # (batch, source_len)

    def predict(self, logits, batch):
        """Give tags by sentence, without the ignored tokens; logits are (batch, source_len, labels)."""
        predicted, true = [], []
        for guesses, labels in zip(logits.argmax(-1).tolist(), batch["labels"].tolist(), strict=True):
            kept = [(guess, label) for guess, label in zip(guesses, labels, strict=True) if label != -100]
            predicted.append([self.labels[guess] for guess, _ in kept])
            true.append([self.labels[label] for _, label in kept])
        return predicted, true

    def score(self, predicted, true):
        return tag_scores(predicted, true)
