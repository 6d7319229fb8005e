"""What differs between tasks, and nothing else: how rows become ids, how batches are made, what is scored.

| objective | source | target | learns |
| --- | --- | --- | --- |
| seq2seq | a text | a text | to write the target (the Transformer of the paper) |
| masked_lm | a text | - | to fill in hidden tokens (Devlin et al. 2019, arXiv:1810.04805) |
| causal_lm | a text | - | to go on (Radford et al. 2018) |
| sequence_classification | a text | its label | to label texts |
| token_classification | words | as many tags | to label words |

The training loop is the same for all: a model gives the loss of a batch, divided by the number of its items.
"""

from typing import Any

import torch
from datasets import Dataset, DatasetDict
from tokenizers import decoders
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForLanguageModeling,
)
from transformers.utils import logging

from .data.batches import pad_batch
from .metrics import label_scores, tag_scores
from .recipe.arguments import GenerationArguments
from .tables import register_objective

logger = logging.get_logger(__name__)


def r_drop_loss(model, batch: dict[str, torch.Tensor], items: float, alpha: float) -> torch.Tensor:
    """R-Drop: two passes with different dropout shall predict alike (Liang et al. 2021, arXiv:2106.14448).

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


class Objective:
    """Sequence to sequence; the other objectives change what differs.

    Args:
        splits: Rows with `source` and `target`.
    """

    name = "seq2seq"
    can_pack = True  # whether it can train on packed rows
    has_targets = True  # whether a row has a target beside its source
    options = frozenset({"r_drop", "scheduled_sampling"})  # those of the recipe that its loss can use
    model_class: Any = AutoModelForSeq2SeqLM
    pipeline = "text2text-generation"  # that its models are used with
    generates = True  # whether it is scored by texts that it generates ...
    predicts = False  # ... or by labels that it predicts
    evaluation_options: dict[str, Any] = {"label_smoothing": 0.0, "skip_logits": True}

    def __init__(self, splits: DatasetDict):
        pass

    @classmethod
    def measured(cls, generation: GenerationArguments) -> list[str]:
        """Return the scores that an evaluation gives beside the loss."""
        return list(generation.metrics)

    def config_fields(self) -> dict[str, Any]:
        """What the objective adds to the model's configuration."""
        return {}

    def texts(self, train: Dataset) -> dict[str, Any]:
        """What a tokenizer is trained on: `texts`, and `targets` where the target is text too."""
        return {"texts": train["source"], "targets": train["target"]}

    def prepare_tokenizer(self, tokenizer) -> None:
        """Change how the tokenizer frames a text."""

    def encode(self, batch: dict[str, list[str]], tokenizer) -> dict[str, list[list[int]]]:
        """Rows to `input_ids` and `labels`, both lists of ids."""
        encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
        return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}

    def collate(self, rows: list[dict[str, Any]], tokenizer) -> dict[str, torch.Tensor]:
        """Rows to tensors: `input_ids`, `attention_mask`, `labels`."""
        return pad_batch(rows, tokenizer.pad_token_id)

    def tokens(self, batch: dict[str, torch.Tensor]) -> int:
        """Real tokens of a batch, for the log."""
        return int(batch["attention_mask"].sum()) + self.items(batch)

    def items(self, batch: dict[str, torch.Tensor]) -> int:
        """Labels that the loss is a mean of."""
        return int((batch["labels"] != -100).sum())

    def loss(
        self, model, batch: dict[str, torch.Tensor], items: float, r_drop: float | None = None, sampling: float = 0.0
    ) -> torch.Tensor:
        """Sum of the losses of a batch, divided by `items`: the labels of all batches that make up a step."""
        if r_drop is not None:
            return r_drop_loss(model, batch, items, r_drop)
        if sampling:
            return scheduled_sampling_loss(model, batch, items, sampling)
        return model(**batch, num_items_in_batch=items).loss


class MaskedLM(Objective):
    """15 % of the tokens are chosen: 80 % of them are masked, 10 % replaced, 10 % kept; they are to be predicted."""

    name = "masked_lm"
    can_pack = False
    has_targets = False
    options = frozenset[str]()
    model_class = AutoModelForMaskedLM
    pipeline = "fill-mask"
    generates = False

    @classmethod
    def measured(cls, generation):
        return []

    def texts(self, train):
        return {"texts": train["source"]}

    def encode(self, batch, tokenizer):
        ids = tokenizer(batch["source"])["input_ids"]
        return {"input_ids": ids, "labels": ids}

    def collate(self, rows, tokenizer):
        batch = super().collate(rows, tokenizer)
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        batch["input_ids"], batch["labels"] = collator.torch_mask_tokens(batch["input_ids"], special)
        return batch

    def tokens(self, batch):
        return int(batch["attention_mask"].sum())


class CausalLM(Objective):
    """Each token is predicted from those before it: `<s> tokens </s>`."""

    name = "causal_lm"
    can_pack = False
    has_targets = False
    options = frozenset[str]()
    model_class = AutoModelForCausalLM
    pipeline = "text-generation"
    generates = False

    @classmethod
    def measured(cls, generation):
        return []

    def texts(self, train):
        return {"texts": train["source"]}

    def prepare_tokenizer(self, tokenizer):
        # A prompt begins with <s> and does not end: the model goes on. What it adds is decoded alone, by
        # pipeline("text-generation"), so a leading space is a part of it and stays.
        tokenizer.backend_tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        bos = tokenizer.bos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )

    def encode(self, batch, tokenizer):
        ids = [[*row, tokenizer.eos_token_id] for row in tokenizer(batch["source"])["input_ids"]]
        return {"input_ids": ids, "labels": [[-100, *row[1:]] for row in ids]}

    def tokens(self, batch):
        return int(batch["attention_mask"].sum())


class SequenceClassification(Objective):
    """One label for a text: the target."""

    name = "sequence_classification"
    can_pack = False
    options = frozenset[str]()
    model_class = AutoModelForSequenceClassification
    pipeline = "text-classification"
    generates = False
    predicts = True
    evaluation_options: dict[str, Any] = {}

    @classmethod
    def measured(cls, generation):
        return ["accuracy", "f1"]

    def __init__(self, splits):
        super().__init__(splits)
        self.labels = self.find_labels(splits)

    def find_labels(self, splits: DatasetDict) -> list[str]:
        """All labels of all splits, sorted: one that only a test set has counts as a mistake there.

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
        """The labels that a target holds."""
        return [target]

    def config_fields(self):
        return {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }

    def texts(self, train):
        return {"texts": train["source"]}

    def encode(self, batch, tokenizer):
        numbers = {label: number for number, label in enumerate(self.labels)}
        ids = tokenizer(batch["source"])["input_ids"]
        return {"input_ids": ids, "labels": [[numbers[target]] for target in batch["target"]]}

    def collate(self, rows, tokenizer):
        batch = super().collate(rows, tokenizer)
        return batch | {"labels": batch["labels"].squeeze(-1)}  # (batch,)

    def tokens(self, batch):
        return int(batch["attention_mask"].sum())

    def predict(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> tuple[list[Any], list[Any]]:
        """Predicted and true labels of a batch, as texts.

        Args:
            logits: (batch, labels).
        """
        pairs = zip(logits.argmax(-1).tolist(), batch["labels"].tolist(), strict=True)
        predicted, true = zip(*((self.labels[p], self.labels[t]) for p, t in pairs), strict=True)
        return list(predicted), list(true)

    def score(self, predicted: list[Any], true: list[Any]) -> dict[str, float]:
        """Scores in percent."""
        return label_scores(predicted, true)


class TokenClassification(SequenceClassification):
    """One tag for each word; the first token of a word carries it, the others are ignored."""

    name = "token_classification"
    model_class = AutoModelForTokenClassification
    pipeline = "token-classification"

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
        """Tags by sentence, without the ignored tokens; logits are (batch, source_len, labels)."""
        predicted, true = [], []
        for guesses, labels in zip(logits.argmax(-1).tolist(), batch["labels"].tolist(), strict=True):
            kept = [(guess, label) for guess, label in zip(guesses, labels, strict=True) if label != -100]
            predicted.append([self.labels[guess] for guess, _ in kept])
            true.append([self.labels[label] for _, label in kept])
        return predicted, true

    def score(self, predicted, true):
        return tag_scores(predicted, true)


for _objective in (Objective, MaskedLM, CausalLM, SequenceClassification, TokenClassification):
    register_objective(_objective)
