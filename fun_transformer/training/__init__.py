"""The trainer: from sentence pairs, or any recipe, to a model that `from_pretrained` and `pipeline()` take.

    from fun_transformer.training import RunArguments, train

    result = train(RunArguments(...))

Its pieces work elsewhere, too: `TokenBudgetSampler`, `pad_batch` and `give_exact_loss` inside transformers'
`Seq2SeqTrainer`, for instance (examples/with_seq2seq_trainer.py).

In the shell: `fun-transformer train RECIPE.yaml`, or `accelerate launch -m fun_transformer.training RECIPE.yaml`.
"""

try:
    from ..losses import linear_cross_entropy
    from .data.batches import PaddedBatches, Share, TokenBudgetSampler, pad_batch
    from .data.packing import PackedBatches, PackingSampler, pack_batch
    from .loop import TrainingLoop
    from .media_objectives import ImageToText, SpeechToText
    from .metrics import ReferenceMetric
    from .model.exact_loss import give_exact_loss
    from .objectives import Objective, Seq2Seq
    from .recipe.arguments import (
        DataArguments,
        GenerationArguments,
        RunArguments,
        SplitArguments,
        TokenizerArguments,
        TrainingArguments,
    )
    from .recipe.reading import parse_arguments
    from .run.run import Run, Scores
    from .scoring import score
    from .tables import register_metric, register_objective
    from .train import TrainResult, build_loop, prepare, train
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("fun_transformer"):
        raise
    text = f"{error.name} is not installed: pip install 'fun-transformer[train]'"
    raise ModuleNotFoundError(text, name=error.name) from error

__all__ = [
    "DataArguments",
    "GenerationArguments",
    "ImageToText",
    "Objective",
    "PackedBatches",
    "PackingSampler",
    "PaddedBatches",
    "ReferenceMetric",
    "Run",
    "RunArguments",
    "Scores",
    "Seq2Seq",
    "Share",
    "SpeechToText",
    "SplitArguments",
    "TokenBudgetSampler",
    "TokenizerArguments",
    "TrainResult",
    "TrainingArguments",
    "TrainingLoop",
    "build_loop",
    "give_exact_loss",
    "linear_cross_entropy",
    "pack_batch",
    "pad_batch",
    "parse_arguments",
    "prepare",
    "register_metric",
    "register_objective",
    "score",
    "train",
]
