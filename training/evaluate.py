"""Evaluation: the loss on a split, and texts generated for its sources and scored."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from training.args import GenerationArguments
from training.batching import TokenBudgetBatches
from training.metrics import compute_metrics
from training.objectives import Objective
from training.rows import TokenRows


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
    module = accelerator.unwrap_model(model)  # processes may have unequal numbers of batches: no DDP here
    with torch.random.fork_rng():  # which tokens are masked: the same at every evaluation
        torch.manual_seed(0)
        for chosen in batches[accelerator.process_index :: accelerator.num_processes]:
            batch = objective.collate([rows[row] for row in chosen], tokenizer)
            batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
            items = objective.items(batch)
            with accelerator.autocast():
                outputs = module(**batch, **objective.evaluation_options)
            total += torch.tensor([outputs.loss.item() * items, items], dtype=torch.float64)
            if objective.predicts:
                guesses, labels = objective.predict(outputs.logits, batch)
                predicted, true = predicted + guesses, true + labels
    total = accelerator.reduce(total.to(accelerator.device, torch.float32), reduction="sum")
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
    module = accelerator.unwrap_model(model)
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    order = order[accelerator.process_index :: accelerator.num_processes]
    texts: list[tuple[int, str]] = []
    with tqdm(
        total=len(order), desc=title, unit=" texts", leave=False, disable=None if accelerator.is_main_process else True
    ) as bar:
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
            texts += zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
            bar.update(len(rows))
    return [text for _, text in sorted(gather_object(texts))]


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
