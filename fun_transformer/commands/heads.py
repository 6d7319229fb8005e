"""What models of each head answer, as records: texts, labels, tags, words for masks, continuations.

A record is a dictionary with the same names in every format. Of a head that ranks answers, each text gets a list of
records, the best first. A text in a batch is answered as it is alone.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..pipeline_batches import TOKENS_A_TEXT, count_tokens, token_batches
from ..pipeline_records import ALIGNED, FIGURES, LISTS

Records = list[dict[str, Any]]
DEFAULT_BATCH = 32
DEFAULT_NEW_TOKENS = 256  # of a continuation, where the model's generation config says nothing


class Answerer:
    """Answers texts with a model.

    Args:
        model: On its device, in eval mode.
        tokenizer: The model's tokenizer.
        count: Answers for each text.
        with_scores: Add to each how probable it is.
        generation: Parameters for `generate`.
    """

    is_ranked = True

    def __init__(self, model, tokenizer, count: int = 1, with_scores: bool = False, **generation: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.count, self.with_scores, self.generation = count, with_scores, generation

    @property
    def fields(self) -> list[str]:
        """Return the names in the records of this head."""
        raise NotImplementedError

    def answer_batch(self, texts: list[str]) -> list[Records]:
        """Answer texts together."""
        raise NotImplementedError

    def answer(self, texts: list[str], batch_size: int | None) -> list[Records]:
        """Answer texts in batches of like length, `DEFAULT_BATCH` texts at most by default; blank texts get no record.

        Raises:
            ValueError: A text cannot be answered.
        """
        filled = [text for text in texts if text.strip()]
        most = batch_size or DEFAULT_BATCH
        found: dict[int, Records] = {}
        with torch.no_grad():
            for batch in token_batches(count_tokens(self.tokenizer, filled), most * TOKENS_A_TEXT, most):
                found |= zip(batch, self.answer_batch([filled[i] for i in batch]))
        answers = iter([found[i] for i in range(len(filled))])
        return [next(answers) if text.strip() else [] for text in texts]

    def encode(self, texts: list, **options: Any):
        """Return texts as padded ids on the model's device, cut at what the model takes."""
        limit = source_limit(self.model, self.tokenizer)
        options |= {"truncation": True, "max_length": limit} if limit else {}
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt", **options)
        return encoded.to(self.model.device)


class Labels(Answerer):
    """Names the class of a text, with its probability; of several classes at once, each by itself."""

    @property
    def fields(self):
        """Return the names in the records of this head."""
        return ["label", "score"] if self.with_scores else ["label"]

    def answer_batch(self, texts):
        """Answer texts together."""
        logits = self.model(**self.encode(texts)).logits.float()  # (batch, labels)
        config = self.model.config
        kind = getattr(config, "problem_type", None)
        if config.num_labels == 1:
            scores = logits
        else:
            scores = logits.sigmoid() if kind == "multi_label_classification" else logits.softmax(-1)
        best = scores.topk(min(self.count, config.num_labels))
        rows = zip(best.indices.tolist(), best.values.tolist())
        return [[self._record(*pair) for pair in zip(*row)] for row in rows]

    def _record(self, label: int, score: float) -> dict[str, Any]:
        record = {"label": self.model.config.id2label[label], "score": score}
        return {name: record[name] for name in self.fields}


class Tags(Answerer):
    """Tags each word of a text, words being what spaces part: the first token of a word carries its tag."""

    is_ranked = False

    @property
    def fields(self):
        """Return the names in the records of this head."""
        return ["words", "tags", *(["tag_scores"] if self.with_scores else [])]

    def answer_batch(self, texts):
        """Answer texts together; one that is too long in parts, cut between words."""
        words = [text.split() for text in texts]
        pieces = [list(self._fitting(row)) for row in words]
        flat = [piece for row in pieces for piece in row]
        encoded = self.tokenizer(flat, is_split_into_words=True, padding=True, return_tensors="pt")
        owners = [encoded.word_ids(row) for row in range(len(flat))]
        best = self.model(**encoded.to(self.model.device)).logits.float().softmax(-1).max(-1)  # (pieces, source_len)
        tagged = []
        for row, (numbers, scores) in enumerate(zip(best.indices.tolist(), best.values.tolist())):
            first = {owner: place for place, owner in reversed(list(enumerate(owners[row]))) if owner is not None}
            places = [first.get(word) for word in range(len(flat[row]))]  # a word may have no token at all
            tags = [None if at is None else self.model.config.id2label[numbers[at]] for at in places]
            tagged.append((tags, [None if at is None else scores[at] for at in places]))
        rest = iter(tagged)
        answers = []
        for row, parts in zip(words, pieces):
            tags, scores = ([one for part in side for one in part] for side in zip(*(next(rest) for _ in parts)))
            record = {"words": row, "tags": tags, "tag_scores": scores}
            answers.append([{name: record[name] for name in self.fields}])
        return answers

    def _fitting(self, words: list[str]) -> Iterator[list[str]]:
        """Yield words in lists that the model takes."""
        limit = source_limit(self.model, self.tokenizer)
        length = len(self.tokenizer(words, is_split_into_words=True, verbose=False).input_ids) if limit else 0
        if len(words) < 2 or not limit or length <= limit:
            yield words
            return
        middle = len(words) // 2
        yield from self._fitting(words[:middle])
        yield from self._fitting(words[middle:])


class Masked(Answerer):
    """Fills the masks of a text; of several masks, each is filled without regard to the others."""

    @property
    def fields(self):
        """Return the names in the records of this head."""
        return ["filled_text", "tokens", *(["score"] if self.with_scores else [])]

    def answer_batch(self, texts):
        """Answer texts together."""
        mask = self.tokenizer.mask_token
        for text in texts:
            if not mask or mask not in text:
                raise ValueError(f"The model fills masks, and {text!r} has none: write {mask} for a missing word.")
        encoded = self.encode(texts)
        logits = self.model(**encoded).logits.float()  # (batch, source_len, vocab_size)
        answers = []
        for ids, is_text, row in zip(encoded["input_ids"], encoded["attention_mask"].bool(), logits):
            places = (ids == self.tokenizer.mask_token_id).nonzero()[:, 0]
            best = row[places].log_softmax(-1).topk(min(self.count, row.shape[-1]))  # (masks, count)
            records = []
            for score, chosen in best_choices(best.values.tolist(), best.indices.tolist(), self.count):
                filled = ids.clone()
                filled[places] = torch.tensor(chosen, dtype=ids.dtype, device=ids.device)
                text = self.tokenizer.decode(filled[is_text], skip_special_tokens=True)
                tokens = [self.tokenizer.decode([token]).strip() for token in chosen]
                record = {"filled_text": text.strip(), "tokens": tokens, "score": math.exp(score)}
                records.append({name: record[name] for name in self.fields})
            answers.append(records)
        return answers


class Causal(Answerer):
    """Goes on with a text."""

    @property
    def fields(self):
        """Return the names in the records of this head."""
        figures = ["log_probability", "mean_log_probability", "min_log_probability"]
        return ["generated_text", *(figures if self.with_scores else [])]

    def answer_batch(self, texts):
        """Answer texts together."""
        tokenizer, model = self.tokenizer, self.model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        encoded = self.encode(texts, padding_side="left")
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        options = {"pad_token_id": tokenizer.pad_token_id, "num_return_sequences": self.count} | self.generation
        if model.generation_config.max_new_tokens is None:
            options = {"max_new_tokens": DEFAULT_NEW_TOKENS} | options
        own = model.generation_config.num_beams or 1
        options["num_beams"] = max(options.get("num_beams") or own, self.count)
        outputs = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=self.with_scores)
        prompt_len = inputs["input_ids"].shape[1]
        records = []
        for ids in outputs.sequences:
            prompt = tokenizer.decode(ids[:prompt_len], skip_special_tokens=True)
            whole = tokenizer.decode(ids, skip_special_tokens=True)
            records.append({"generated_text": whole[len(prompt) :]})
        if self.with_scores:
            for record, figures in zip(records, self._figures(outputs, prompt_len)):
                record |= figures
        return [records[i : i + self.count] for i in range(0, len(records), self.count)]

    def _figures(self, outputs, prompt_len: int) -> Iterator[dict[str, float]]:
        """Yield the log-probabilities of each continuation, `</s>` with it."""
        log_probs = self.model.compute_transition_scores(
            outputs.sequences, outputs.logits, getattr(outputs, "beam_indices", None), normalize_logits=True
        )  # (batch * count, target_len)
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor([] if ends is None else ends, device=log_probs.device).reshape(-1).long()
        is_end = torch.isin(outputs.sequences[:, prompt_len:], ends)
        is_target = is_end.cumsum(-1) - is_end.long() == 0  # up to the first </s>
        for row, kept in zip(log_probs.float(), is_target):
            row = row[kept[: len(row)]]
            yield {
                "log_probability": row.sum().item(),
                "mean_log_probability": row.mean().item(),
                "min_log_probability": row.min().item(),
            }


class Texts(Answerer):
    """Turns texts into texts, by the pipelines for translation, summarization and anything else.

    Args:
        pipe: The pipeline, with its options.
        count: Answers for each text.
        with_scores: Add how probable each is.
        with_alignments: Add which words belong together.
        with_lists: Add what is a list of tokens or words, too.
    """

    def __init__(self, pipe, count: int, with_scores: bool, with_alignments: bool, with_lists: bool) -> None:
        super().__init__(pipe.model, pipe.tokenizer, count, with_scores)
        self.pipe, self.with_alignments, self.with_lists = pipe, with_alignments, with_lists

    @property
    def fields(self):
        """Return the names in the records of this head."""
        names = [f"{self.pipe.return_name}_text"]
        names += FIGURES if self.with_scores else []
        names += LISTS if self.with_scores and self.with_lists else []
        names += ALIGNED if self.with_alignments else []
        names += ["utility"] if self.pipe.mbr else []
        return [*names, "faults", "fallbacks", "faults_left"] if self.pipe.guard else names

    def answer(self, texts, batch_size):
        """Answer texts; the pipeline makes the batches."""
        filled = [text for text in texts if text.strip()]
        found = self.pipe(
            filled,
            batch_size=batch_size,
            num_return_sequences=self.count if self.count > 1 else None,
            return_scores=self.with_scores,
            return_alignments=self.with_alignments,
        )
        rest = iter(found)
        answers = [next(rest) if text.strip() else [] for text in texts]
        records = [[one] if isinstance(one, dict) else one for one in answers]
        return [[{name: record.get(name) for name in self.fields} for record in one] for one in records]


ANSWERERS: dict[str, Callable[..., Answerer]] = {"labels": Labels, "tags": Tags, "masked": Masked, "causal": Causal}


def source_limit(model, tokenizer) -> int | None:
    """Return how many tokens a model takes at most, None where neither it nor the tokenizer says."""
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    return min((limit for limit in limits if limit and limit < 10**9), default=None)


def best_choices(scores: list[list[float]], items: list[list[int]], count: int) -> list[tuple[float, list[int]]]:
    """Return the best ways to choose one item a row, with the sums of their scores; rows are sorted, best first."""
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for row_scores, row_items in zip(scores, items):
        longer = [(total + s, [*chosen, i]) for total, chosen in best for s, i in zip(row_scores, row_items)]
        best = heapq.nlargest(count, longer, key=lambda choice: choice[0])
    return best
