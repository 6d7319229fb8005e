"""The teacher of word-level distillation: trained models that say at each step of a run what they would predict."""

from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from ...decoding.ensemble import Ensemble, check_ensemble, vocabularies
from ...hub.finding import find_model
from ..recipe.arguments import RunArguments
from ..run.run import Run


def check_teacher(arguments: RunArguments) -> None:
    """Refuse a teacher that is not there, before data are read.

    Raises:
        ValueError: Naming it.
    """
    for path in arguments.training.teacher:
        load_part(AutoTokenizer, path)


def load_part(auto_class: Any, path: str, **options: Any) -> Any:
    """Load the model or the tokenizer of a teacher.

    Raises:
        ValueError: It cannot be loaded.
    """
    try:
        return auto_class.from_pretrained(find_model(path), **options)
    except Exception as error:  # of many types: a package that is missing, a file that is not there
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"training.teacher={path} cannot be loaded: {reason}") from error


def load_teacher(run: Run, student: PreTrainedModel) -> Ensemble:
    """Load the models of `training.teacher` as one that is never trained nor saved.

    Args:
        run: The run.
        student: The model that is trained.

    Raises:
        ValueError: A model cannot be loaded, or reads or writes other tokens than the student.
    """
    paths, device = run.arguments.training.teacher, run.accelerator.device
    for path in paths:
        if vocabularies(load_part(AutoTokenizer, path)) != vocabularies(run.tokenizer):
            raise ValueError(
                f"training.teacher={path} has another vocabulary than this run. Give the run its tokenizer: "
                f"tokenizer.path: {path}"
            )
    # Without autocast: in bfloat16 a teacher is as fast as the student is under it.
    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    models = [load_part(AutoModelForSeq2SeqLM, path, dtype=dtype) for path in paths]
    try:
        check_ensemble([student, *models])
    except ValueError as error:
        raise ValueError(f"training.teacher={paths}, counted after the model of this run: {error}") from error
    teacher = Ensemble(models).to(device)
    return teacher.requires_grad_(False)
