"""Evaluation: the loss on a split, and texts generated for its sources and scored."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from .data.batches import TokenBudgetBatches
from .data.rows import TokenRows
from .metrics import compute_metrics
from .model.wrapping import whole_model
from .objectives import Objective
from .recipe.arguments import GenerationArguments


def share(count: int, accelerator: Accelerator) -> range:
    """The numbers that this process works on, equally many on each process; those from `count` on are fillers."""
    rounded = count + -count % accelerator.num_processes
    return range(accelerator.process_index, rounded, accelerator.num_processes)


@torch.inference_mode()
def evaluate_loss(
    model, tokenizer, dataset: Dataset, accelerator: Accelerator, objective: Objective, batch_tokens: int
) -> tuple[dict[str, float], list[Any], list[Any]]:
    """Loss of a split, without label smoothing, and the labels that are predicted on the way.

    Args:
        model: The prepared model.
        dataset: Rows with `input_ids` and `labels`; every row counts exactly once, whatever the number of processes.

    Returns:
        `loss` in nats an item, with its exponential, the perplexity, where items are tokens; predicted labels; true
        labels, both in no order and empty where the objective predicts none.
    """
    model.eval()
    rows = TokenRows(dataset)
    # Cut as for one process: with several, batches that were repeated to even out their number would count twice.
    batches = TokenBudgetBatches(rows.source_lengths, rows.target_lengths, batch_tokens, seed=0).batches(0)
    total = torch.zeros(2, dtype=torch.float64)  # sum of losses, number of items
    predicted: list[Any] = []
    true: list[Any] = []
    with whole_model(accelerator, model) as module, torch.random.fork_rng():
        for number in share(len(batches), accelerator):
            # Where a process has no batch left it repeats one and does not count it: sharded models need all of them.
            chosen = batches[number % len(batches)]
            torch.manual_seed(number)  # which tokens are masked: the same at every evaluation, on any processes
            batch = objective.collate([rows[row] for row in chosen], tokenizer)
            batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
            items = objective.items(batch)
            with accelerator.autocast():
                outputs = module(**batch, **objective.evaluation_options)
            if number >= len(batches):
                continue
            total += torch.tensor([outputs.loss.item() * items, items], dtype=torch.float64)
            if objective.predicts:
                guesses, labels = objective.predict(outputs.logits, batch)
                predicted, true = predicted + guesses, true + labels
    exact = torch.float32 if accelerator.device.type == "mps" else torch.float64
    total = accelerator.reduce(total.to(accelerator.device, exact), reduction="sum")
    scores = {"loss": float(total[0] / total[1])}
    if objective.predicts:
        return scores, gather_object(predicted), gather_object(true)
    return scores | {"perplexity": math.exp(min(scores["loss"], 100.0))}, [], []


@torch.inference_mode()
def generate_texts(
    model, tokenizer, sources: list[str], accelerator: Accelerator, settings: GenerationArguments, title: str
) -> list[str]:
    """Generate a text for each source, in batches of similar length, on all processes.

    Returns:
        Texts in the order of `sources`, on every process.
    """
    model.eval()
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    order = [order[place % len(order)] for place in share(len(order), accelerator)]  # repeated ones are dropped below
    texts: dict[int, str] = {}
    hidden = None if accelerator.is_main_process else True
    with (
        whole_model(accelerator, model) as module,
        tqdm(total=len(order), desc=title, unit=" texts", leave=False, disable=hidden) as bar,
    ):
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            inputs = tokenizer([sources[row] for row in rows], padding=True, return_tensors="pt").to(module.device)
            ids = module.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                num_beams=settings.num_beams,
                max_new_tokens=settings.max_new_tokens,
                length_penalty=settings.length_penalty if settings.num_beams > 1 else None,
                do_sample=False,
            )
            texts |= zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
            bar.update(len(rows))
    return [text for _, text in sorted(dict(gather_object(list(texts.items()))).items())]


def evaluate_split(
    model,
    tokenizer,
    dataset: Dataset,
    accelerator: Accelerator,
    objective: Objective,
    settings: GenerationArguments,
    batch_tokens: int,
    title: str,
    rows: int | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Loss, and the scores of predicted labels or of generated texts.

    Args:
        dataset: With `source`, `target`, `input_ids`, `labels` and perhaps `references`, all accepted targets.
        rows: Generate for so many rows only, spread evenly over the split; for all when None.

    Returns:
        The scores, and the generated rows: source, references, prediction.
    """
    scores: dict[str, Any]
    scores, predicted, true = evaluate_loss(model, tokenizer, dataset, accelerator, objective, batch_tokens)
    samples = []
    if objective.predicts:
        scores |= objective.score(predicted, true)
    if objective.generates and settings.metrics:
        count = min(rows or len(dataset), len(dataset))
        chosen = dataset.select([index * len(dataset) // count for index in range(count)])
        sources = list(chosen["source"])
        references = list(chosen["references"]) if "references" in chosen.column_names else None
        references = references or [[target] for target in chosen["target"]]
        predictions = generate_texts(model, tokenizer, sources, accelerator, settings, title)
        scores |= compute_metrics(settings.metrics, predictions, references)
        samples = [
            {"source": source, "references": accepted, "prediction": prediction}
            for source, accepted, prediction in zip(sources, references, predictions, strict=True)
        ]
    return scores, samples
