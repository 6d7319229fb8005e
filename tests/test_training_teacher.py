"""Word-level distillation: a student learns what its teachers predict, and rows that they wrote."""

import json

import pytest
import torch
from forked_runs import read_metrics, write_digits_recipe
from safetensors.torch import load_file
from tiny_seq2seq import tiny_model as tiny_of_family
from tiny_seq2seq import word_tokenizer
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from fun_transformer import cli
from fun_transformer.decoding import Ensemble
from fun_transformer.training import TrainingLoop, parse_arguments, train
from fun_transformer.training.model.exact_loss import give_exact_loss
from fun_transformer.training.objectives import word_distillation_loss

LOSS = ["--training.metric_for_best_model", "loss"]
# A short run whose learning rate does not depend on its end.
SHORT = [*LOSS, "--training.schedule", "inverse_sqrt", "--training.save_steps", "3", "--training.eval_steps", "3"]


@pytest.fixture
def teachers(tiny_model):
    """Two models of the tiny vocabulary that predict differently."""
    models = [tiny_model(), tiny_model(d_model=8)]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.mul_(1.7)
    return models


def test_the_loss_is_the_mean_of_labels_and_teachers(tiny_model, teachers, tiny_batch):
    student, items, labels = tiny_model(dropout=0.0, label_smoothing=0.1).train(), 11.0, tiny_batch["labels"]
    found = word_distillation_loss(student, Ensemble(teachers), tiny_batch, items, weight=0.3)
    p = torch.stack([model(**tiny_batch, skip_logits=False).logits.softmax(-1) for model in teachers]).mean(0)
    outputs = student(**tiny_batch, skip_logits=False)
    log_q, kept = outputs.logits.log_softmax(-1), labels != -100
    divergence = (p * (p.log() - log_q)).sum(-1)[kept].sum()
    assert divergence > 0.1
    assert_close(found, (0.7 * outputs.loss * kept.sum() + 0.3 * divergence) / items)


def test_the_loss_of_a_batch_is_the_sum_of_its_parts(tiny_model, teachers, tiny_batch):
    student, teacher, items = tiny_model(dropout=0.0).train(), Ensemble(teachers), 9.0
    whole = word_distillation_loss(student, teacher, tiny_batch, items, 0.5)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    for row in range(len(tiny_batch["labels"])):
        part = {name: tensor[row : row + 1] for name, tensor in tiny_batch.items()}
        part["labels"] = part["labels"][:, : int((part["labels"] != -100).sum())]
        word_distillation_loss(student, teacher, part, items, 0.5).backward()
    for parameter, gradient in zip(student.parameters(), gradients, strict=True):
        assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for model in teachers for parameter in model.parameters())


@pytest.mark.parametrize("family", ["fun_transformer", "marian", "m2m100", "t5", "rnn"])
def test_a_student_that_predicts_what_its_teacher_does_has_nothing_to_learn(family):
    student, teacher = tiny_of_family(family), tiny_of_family(family)
    if family not in ("fun_transformer", "rnn"):
        give_exact_loss(student)
    batch = word_tokenizer()(["a b", "c d e f"], text_target=["d e f", "a"], padding=True, return_tensors="pt")
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == 0, -100)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    loss = word_distillation_loss(student, Ensemble([teacher]), inputs, 6.0, 1.0)
    assert abs(loss.item()) < 1e-5
    loss.backward()
    assert max(p.grad.abs().max().item() for p in student.parameters() if p.grad is not None) < 1e-3


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of words of digits that are written backwards, and a short run of it in `run`."""
    path = write_digits_recipe(tmp_path_factory.mktemp("digits"))
    train(parse_arguments([str(path), *SHORT, "--training.max_steps", "12", "--training.learning_rate", "1e-2"]))
    return path


def taught(recipe, name, *options):
    """The folder of a run that the first one teaches."""
    run = recipe.parent / "run"
    words = ["--training.teacher", str(run), "--tokenizer.path", str(run / "model"), "--model.d_model", "16"]
    folder = recipe.parent / name
    seen = []

    class Watching(TrainingLoop):
        def train_step(self, done):
            seen.append(self.setup.objective.teacher)
            return super().train_step(done)

    train(parse_arguments([str(recipe), "--output_dir", str(folder), *SHORT, *words, *options]), loop=Watching)
    assert all(isinstance(teacher, Ensemble) and not teacher.training for teacher in seen)
    assert not any(parameter.requires_grad for teacher in seen for parameter in teacher.parameters())
    return folder


def test_a_taught_run_goes_on_exactly_and_keeps_no_teacher(recipe):
    whole = taught(recipe, "whole", "--training.max_steps", "6")
    halved = taught(recipe, "halved", "--training.max_steps", "3")
    assert taught(recipe, "halved", "--training.max_steps", "6", "--resume", "true") == halved
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (whole, halved)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    model, tokens = AutoModelForSeq2SeqLM.from_pretrained(whole / "model"), (whole / "model" / "tokenizer.json")
    assert model.config.d_model == 16 and not any("teacher" in name for name, _ in model.named_parameters())
    assert tokens.read_bytes() == (recipe.parent / "run" / "model" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--training.teacher", "{run}", "--objective", "masked_lm", *LOSS], "teacher is for objective: seq2seq"),
        (["--training.teacher", "{run}", "--training.packing", "32"], "reads padded rows"),
        (["--training.teacher", "{run}", "--training.r_drop", "5"], "r_drop and training.teacher exclude each other"),
        (["--training.teacher_weight", "0.7"], "Give training.teacher: MODEL"),
        (["--training.teacher", "{run}", "--training.teacher_weight", "1.5"], "teacher_weight"),
        (["--training.teacher", "no/folder"], "training.teacher=no/folder cannot be loaded"),
        (["--training.teacher", "{run}", "--tokenizer.type", "word"], "another vocabulary.*tokenizer.path: "),
        (["--training.teacher", "{t5}", "--tokenizer.path", "{run}/model"], "decoder_start_token_id"),
    ],
)
def test_what_cannot_teach_is_refused_before_the_first_step(recipe, tmp_path, options, message):
    from transformers import AutoTokenizer

    run = recipe.parent / "run"
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    if "{t5}" in options:
        config = T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
        tokenizer.save_pretrained(tmp_path / "t5")
    words = [word.format(run=run, t5=tmp_path / "t5") for word in options]
    with pytest.raises(ValueError, match=message):
        train(parse_arguments([str(recipe), "--output_dir", str(tmp_path / "out"), *words]))
    assert not (tmp_path / "out").exists()


def test_what_a_model_wrote_trains_another_whose_loss_falls(recipe):
    folder = recipe.parent
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    (folder / "words.txt").write_text("".join(row["source"] + "\n" for row in rows[:120]), encoding="utf-8")
    file = folder / "run" / "model" / "generation_config.json"  # so little trained, it would write nothing
    file.write_text(json.dumps(json.loads(file.read_text()) | {"begin_suppress_tokens": [2]}), encoding="utf-8")
    output = folder / "distilled.jsonl"
    words = ["--sources", str(folder / "words.txt"), "--output", str(output), "--no-guard", "--long-text", "whole"]
    assert cli.main(["distill", str(folder / "run"), *words, "--max-new-tokens", "6"]) == 0
    student = folder / "student"
    options = ["--data.train.dataset", str(output), "--tokenizer.path", str(folder / "run" / "model")]
    options += ["--training.max_steps", "40", "--training.learning_rate", "1e-2", "--training.warmup_steps", "0"]
    options += [
        "--training.eval_steps",
        "10",
        "--training.logging_steps",
        "10",
        "--data.validation.dataset",
        str(output),
    ]
    train(parse_arguments([str(recipe), "--output_dir", str(student), *options]))
    losses = [line["loss"] for line in read_metrics(student, "validation")]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_two_processes_are_taught_as_one_is_by_as_many_batches(children, recipe, tmp_path):
    run = recipe.parent / "run"
    words = [*LOSS, "--training.teacher", str(run), "--tokenizer.path", str(run / "model"), "--model.dropout", "0"]
    words += ["--training.max_steps", "4", "--training.batch_tokens", "128", "--generation.metrics", "[]"]
    two, one = tmp_path / "two", tmp_path / "one"
    assert children.run(recipe, two, *words, processes=2) == [0, 0], children.log(two)
    assert children.run(recipe, one, *words, "--training.gradient_accumulation_steps", "2") == [0], children.log(one)
    found, alone = ([line["loss"] for line in read_metrics(folder, "train")] for folder in (two, one))
    assert len(found) == 4
    assert_close(found, alone, rtol=1e-4, atol=0)
