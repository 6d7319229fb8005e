"""Scores of a model on a split: the loss, and labels that it predicts or texts that it generates."""

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from ..tokenization_fun_transformer import unknown_characters
from .data.batches import TokenBudgetSampler
from .data.languages import generation_options, language_pairs
from .data.rows import TokenRows
from .metrics import choose_bleu_tokenize, compute_metrics
from .model.wrapping import whole_model
from .recipe.arguments import AUTO, RunArguments
from .recipe.model_config import longest_text
from .run.run import Run, Scores
from .tables import OBJECTIVES

EXAMPLES = 1000  # rows of a corpus that show its script

SHOWN_UNKNOWN = 10  # parts of texts that a vocabulary lacks


@dataclass
class Predictions:
    """Labels of rows, as texts, in no order; empty where the objective predicts none."""

    predicted: list[Any] = field(default_factory=list)
    true: list[Any] = field(default_factory=list)


def resolve_bleu(arguments: RunArguments, train: Dataset) -> RunArguments:
    """Return the recipe with how BLEU cuts text into words, decided once a run, by the training targets.

    Args:
        arguments: A recipe; it is left as it is.
        train: The training rows. Of several corpora each is looked at: what suits one without spaces suits all.
    """
    generation = arguments.generation
    if generation.bleu_tokenize != AUTO or not OBJECTIVES[arguments.objective].generates:
        return arguments
    corpora = np.array(train["corpus"][:]) if "corpus" in train.column_names else np.zeros(len(train), dtype=int)
    found = set()
    for number, corpus in enumerate(arguments.data.train.corpora):
        rows = np.flatnonzero(corpora == number)
        if len(rows):
            examples = train.select(rows[:: 1 + len(rows) // EXAMPLES])["target"]
            found.add(choose_bleu_tokenize(examples, corpus.tgt_lang))
    chosen: Any = next(name for name in ("char", "zh", "13a") if name in found)
    return replace(arguments, generation=replace(generation, bleu_tokenize=chosen))


def score(run: Run, model: Any, split: str, rows: int | None = None) -> Scores:
    """Measure the loss of a model on a split, and the scores of predicted labels or of generated texts.

    Args:
        run: The run.
        model: Any model of the run's objective, prepared or not.
        split: Name of a split of the run, with `source`, `target`, their token ids, and perhaps `references`, all
            accepted targets.
        rows: Generate for this many rows only, spread evenly over the split; for all when None.
    """
    dataset, settings = run.splits[split], run.arguments.generation
    metrics = settings.metrics
    loss, labels = measure_loss(run, model, dataset)
    scores = Scores(loss)
    if run.objective.predicts:
        scores.values |= run.objective.score(labels.predicted, labels.true)
    if run.objective.generates and metrics:
        count = min(rows or len(dataset), len(dataset))
        chosen = dataset.select([index * len(dataset) // count for index in range(count)])
        sources = list(chosen["source"])
        references = list(chosen["references"]) if "references" in chosen.column_names else None
        references = references or [[target] for target in chosen["target"]]
        predictions = generate_by_language(run, model, chosen, split)
        form = run.arguments.tokenizer.normalization
        same_form = [[comparable(text, form) for text in accepted] for accepted in references]
        compared = [comparable(text, form) for text in predictions]
        scores.values |= compute_metrics(metrics, compared, same_form, settings.bleu_tokenize)
        scores.samples = [
            {"source": source, "references": accepted, "prediction": prediction}
            for source, accepted, prediction in zip(sources, references, predictions, strict=True)
        ]
        if rows is None and run.objective.modality == "text" and (lacking := describe_unknown(run.tokenizer, chosen)):
            run.accelerator.print(f"{split}: {lacking}")
    return scores


def comparable(text: str, normalization: str) -> str:
    """Return a text in one Unicode form, where the tokenizer does not keep the form of texts: é is é in NFD, too."""
    return text if normalization == "none" else unicodedata.normalize("NFC", text)


def describe_unknown(tokenizer: Any, dataset: Dataset) -> str:
    """Say which characters, or words, of the sources the vocabulary lacks: the model does not see them.

    Args:
        tokenizer: Any of transformers.
        dataset: Rows with `source` and `input_ids`.

    Returns:
        A sentence; an empty text where nothing is lacking.
    """
    found: Counter[str] = Counter()
    rows = 0
    for row in dataset.select_columns(["source", "input_ids"]):
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in row["input_ids"]:
            found.update(unknown_characters(tokenizer, row["source"]))
            rows += 1
    shown = ", ".join(f"{text!r} ({count:,})" for text, count in found.most_common(SHOWN_UNKNOWN))
    return f"{rows:,} of {len(dataset):,} sources have parts that the vocabulary lacks: {shown}." if found else ""


def shared_out(count: int, accelerator: Accelerator) -> range:
    """Number what this process works on, equally many on each process; numbers from `count` on repeat others."""
    rounded = count + -count % accelerator.num_processes
    return range(accelerator.process_index, rounded, accelerator.num_processes)


@torch.inference_mode()
def measure_loss(run: Run, model: Any, dataset: Dataset) -> tuple[dict[str, Any], Predictions]:
    """Measure the loss on all rows, without label smoothing, and note the labels that are predicted on the way.

    Every row counts exactly once, whatever the number of processes.

    Returns:
        `loss` in nats an item, with its exponential, the perplexity, where items are tokens; and the labels.
    """
    accelerator, objective = run.accelerator, run.objective
    model.eval()
    rows = TokenRows(dataset)
    # Cut as for one process: with several, batches that were repeated to even out their number would count twice.
    budget, targets = run.arguments.training.batch_tokens, objective.budget(rows.target_lengths)
    batches = TokenBudgetSampler(rows.source_lengths, targets, budget, seed=0).batches(0)
    total = torch.zeros(2, dtype=torch.float64)  # sum of losses, number of items
    labels = Predictions()
    with whole_model(accelerator, model) as module, torch.random.fork_rng():
        for number in shared_out(len(batches), accelerator):
            # Where a process has no batch left it repeats one and does not count it: sharded models need all of them.
            chosen = batches[number % len(batches)]
            torch.manual_seed(number)  # which tokens are masked: the same at every evaluation, on any processes
            read = objective.refresh([rows[row] for row in chosen], map(str, chosen), run.tokenizer)
            batch = objective.collate(read, run.tokenizer)
            batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
            items = objective.items(batch)
            with accelerator.autocast():
                outputs = module(**batch, **objective.evaluation_options)
            if number >= len(batches):
                continue
            total += torch.tensor([outputs.loss.item() * items, items], dtype=torch.float64)
            if objective.predicts:
                predicted, true = objective.predict(outputs.logits, batch)
                labels.predicted += predicted
                labels.true += true
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64
    total = accelerator.reduce(total.to(accelerator.device, exact), reduction="sum")
    scores = {"loss": float(total[0] / total[1])}
    if objective.predicts:
        return scores, Predictions(gather_object(labels.predicted), gather_object(labels.true))
    return scores | {"perplexity": math.exp(min(scores["loss"], 100.0))}, labels


def generate_by_language(run: Run, model: Any, rows: Dataset, split: str) -> list[str]:
    """Generate a text for each row of a split, in its language where the tokenizer frames texts by theirs."""
    pairs = language_pairs(run.tokenizer, run.arguments.data, split)
    if not pairs:
        return generate_texts(run, model, rows, title=split)
    of_rows = [pairs[corpus] for corpus in rows["corpus"]] if "corpus" in rows.column_names else pairs[:1] * len(rows)
    texts = [""] * len(rows)
    for pair in sorted(set(of_rows)):
        chosen = [row for row, other in enumerate(of_rows) if other == pair]
        options = generation_options(run.tokenizer, pair)
        generated = generate_texts(run, model, rows.select(chosen), split, options)
        for row, text in zip(chosen, generated, strict=True):
            texts[row] = text
    return texts


@torch.inference_mode()
def generate_texts(
    run: Run, model: Any, sources: Dataset, title: str, options: dict[str, Any] | None = None
) -> list[str]:
    """Generate a text for each source, in batches of similar length, on all processes.

    Args:
        run: The run.
        model: Any model that generates, prepared or not.
        sources: Rows of a split.
        title: Of the progress bar.
        options: More of `generate`, such as the language to begin with.

    Returns:
        Texts in the order of `sources`, on every process.
    """
    accelerator, settings = run.accelerator, run.arguments.generation
    model.eval()
    sizes = run.objective.sizes(sources)
    order = sorted(range(len(sources)), key=lambda row: -sizes[row])
    order = [order[place % len(order)] for place in shared_out(len(order), accelerator)]  # repeated ones go below
    texts: dict[int, str] = {}
    hidden = None if accelerator.is_main_process else True
    with (
        whole_model(accelerator, model) as module,
        tqdm(total=len(order), desc=title, unit=" texts", leave=False, disable=hidden) as bar,
    ):
        longest = longest_text(module.config) or settings.max_new_tokens
        # A limit of the model's own is off: `max_new_tokens` goes before it, with a warning at each batch.
        own_limit = {} if module.generation_config.max_length is None else {"max_length": None}
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            inputs = run.objective.inputs(sources, rows, run.tokenizer)
            ids = module.generate(
                **{name: tensor.to(module.device) for name, tensor in inputs.items()},
                num_beams=settings.num_beams,
                max_new_tokens=min(settings.max_new_tokens, longest),
                length_penalty=settings.length_penalty if settings.num_beams > 1 else None,
                do_sample=False,
                **own_limit,
                **(options or {}),
            )
            texts |= zip(rows, run.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
            bar.update(len(rows))
    return [text for _, text in sorted(dict(gather_object(list(texts.items()))).items())]


def show_scores(values: dict[str, Any]) -> str:
    """Show scores in one line, without signatures."""
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items() if isinstance(value, float))
