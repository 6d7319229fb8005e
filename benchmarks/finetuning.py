"""Fine-tuning beside transformers' `Seq2SeqTrainer`, in one run: real tokens a second, and the loss after equal time.

    python -m benchmarks.finetuning train.de.gz train.en.gz --model marian-opus --output RESULTS.json
    python -m benchmarks.finetuning train.de.gz train.en.gz --model marian-small --rounds 8 --output RESULTS.json

Each contender is a process of its own with one copy of the same model, whose weights are random: speed does not depend
on them, and all begin with the same loss. They train in turn (A B A B), each for the same number of seconds: on a CPU
of its own time, so that other programs matter less. "Real tokens" are source and target tokens with `</s>`, without
padding. In the end each model is scored by the same function on the same held-out pairs. The results of several models
go into one file.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    TokenizersBackend,
    TrainerCallback,
)

from fun_transformer.files import write_atomically
from fun_transformer.training import (
    TokenBudgetSampler,
    build_loop,
    give_exact_loss,
    pad_batch,
    parse_arguments,
    prepare,
)
from fun_transformer.training.data.readers import number_lines
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.run.environment import describe_environment

MERGES = 16_000  # of the tokenizer; a model may have more rows, as OPUS-MT's for two languages
RATE = 2e-4
BATCH_TOKENS = 2560  # padding included; our trainer would choose 2,048 for 10,000 pairs
ROWS = {"default": 8, "best": 64}  # of a batch of Seq2SeqTrainer: as it comes, and with about as many tokens as ours
MARIAN = {"scale_embedding": True, "activation_function": "swish", "max_position_embeddings": 512}
SIZES = {"opus": (512, 6, 8, 2048, 58_101), "small": (256, 3, 4, 1024, MERGES), "tiny": (16, 1, 2, 32, MERGES)}


def build_base(name: str, texts: list[str], folder: Path) -> None:
    """Write a model with random weights, of the size of a well-known one, and its tokenizer."""
    special = ["<pad>", "</s>", "<unk>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=MERGES, special_tokens=special))
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = TokenizersBackend(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    model: Any
    if name == "t5-small":
        model = T5ForConditionalGeneration(T5Config(vocab_size=32_128, **ids))
    else:
        d_model, layers, heads, ffn_dim, rows = SIZES[name.removeprefix("marian-")]
        both = {"layers": layers, "attention_heads": heads, "ffn_dim": ffn_dim}
        sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in both.items()}
        model = MarianMTModel(MarianConfig(vocab_size=rows, d_model=d_model, **sides, **MARIAN, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# ── A contender, in its own process ──────────────────────────────────────────────────────────────────────────────────


class Clock:
    """Reads from standard input how long a turn is, and answers with what was done in it."""

    def __init__(self) -> None:
        self.tokens = 0

    def wait(self) -> bool:
        """Wait for the next turn; False where there is none."""
        line = sys.stdin.readline().strip()
        self.tokens, self.wall, self.cpu = 0, time.monotonic(), time.process_time()
        self.end = float(line or 0)
        return bool(line) and line != "0"

    def is_over(self) -> bool:
        """Tell whether the turn is over; answer then."""
        wall, cpu = time.monotonic() - self.wall, time.process_time() - self.cpu
        if (wall if torch.cuda.is_available() else cpu) < self.end:
            return False
        print(json.dumps({"tokens": self.tokens, "wall": wall, "cpu": cpu}), flush=True)
        return True


def real_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Source and target tokens, without padding."""
    return int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())


class TakeTurns(TrainerCallback):
    """Makes a `Trainer` wait for its turn between two steps."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def on_step_end(self, args, state, control, **kwargs):
        if self.clock.is_over():
            control.should_training_stop = not self.clock.wait()


class TokenBudgetTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` with our batches, as in examples/with_seq2seq_trainer.py."""

    def get_train_dataloader(self):
        rows = self.train_dataset
        lengths = ([len(ids) for ids in rows[side]] for side in ("input_ids", "labels"))
        sampler = TokenBudgetSampler(*lengths, BATCH_TOKENS, self.args.seed)
        loader: DataLoader = DataLoader(rows, batch_sampler=sampler, collate_fn=self.data_collator)
        return prepare_data_loader(loader, num_processes=1, process_index=0)


def with_trainer(kind: type[Seq2SeqTrainer], is_best: bool, run: Any, clock: Clock, base: str) -> Any:
    """Train with transformers' trainer; return the model."""
    model_class = T5ForConditionalGeneration if "t5" in Path(base).name else MarianMTModel
    model = model_class.from_pretrained(base)
    pad = partial(pad_batch, pad_token_id=0)
    if kind is Seq2SeqTrainer:
        pad = DataCollatorForSeq2Seq(run.tokenizer, model=model)  # type: ignore[assignment]
    else:
        give_exact_loss(model)

    def collate(rows):
        batch = pad([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
        clock.tokens += real_tokens(batch)
        return batch

    best = {"train_sampling_strategy": "group_by_length", "bf16": True} if is_best else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=ROWS["best" if is_best else "default"],
            learning_rate=RATE,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=50,
            max_steps=10**6,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            **best,
        )
        rows = run.splits["train"].select_columns(["input_ids", "labels"])
        trainer = kind(model, arguments, data_collator=collate, train_dataset=rows, callbacks=[TakeTurns(clock)])
        if clock.wait():
            trainer.train()
    return model


def with_ours(run: Any, clock: Clock) -> Any:
    """Train with this project's loop; return the model."""
    loop = build_loop(run)
    while clock.wait():
        for step in loop.steps():
            clock.tokens += step.tokens
            if clock.is_over():
                break
    return loop.module


@torch.no_grad()
def held_out_loss(model: Any, run: Any) -> float:
    """Loss of a token of the held-out pairs, in float32, without smoothing: by the model's own logits."""
    model.eval()
    total = items = 0.0
    rows = run.splits["validation"].select(range(min(200, len(run.splits["validation"]))))
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
    for start in range(0, len(order), 32):
        chosen = [{name: rows[row][name] for name in ("input_ids", "labels")} for row in order[start : start + 32]]
        batch = pad_batch(chosen, 0)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels)
        logits = model(**batch, decoder_input_ids=decoder_input_ids).logits.float()
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
        items += int((labels != -100).sum())
    return total / items


CONTENDERS = {
    "ours": None,
    "Seq2SeqTrainer, as it comes": (Seq2SeqTrainer, False),
    "Seq2SeqTrainer, best settings": (Seq2SeqTrainer, True),
    "Seq2SeqTrainer, our batches and loss": (TokenBudgetTrainer, True),
}


def serve(options: argparse.Namespace) -> None:
    """Be one contender: train when told to, then print the score."""
    torch.set_num_threads(options.threads)
    command = [f"--model.path={options.base}", f"--data.train.source={options.source}"]
    command += [f"--data.train.target={options.target}", f"--data.max_rows={options.pairs}", "--data.bad_rows=drop"]
    command += [f"--training.threads={options.threads}", f"--training.learning_rate={RATE}", "--output_dir=unused"]
    command += ["--training.schedule=inverse_sqrt", "--training.warmup_steps=50", "--model.label_smoothing=0"]
    command += [f"--training.batch_tokens={BATCH_TOKENS}", "--data.validation_rows=500"]
    arguments = parse_arguments(command)
    run, _ = prepare(arguments, build_accelerator(arguments))
    clock, how = Clock(), CONTENDERS[options.serve]
    print(json.dumps({"ready": options.serve}), flush=True)
    if how is None:
        model = with_ours(run, clock)
    else:
        AcceleratorState._reset_state(reset_partial_state=True)  # the trainer chooses its own precision
        model = with_trainer(*how, run, clock, options.base)
    print(json.dumps({"loss": held_out_loss(model, run)}), flush=True)


# ── All of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Contender:
    """A contender's process, from outside.

    Args:
        name: Of the contender.
        options: Of the command line.
        base: Folder of the model.
    """

    def __init__(self, name: str, options: argparse.Namespace, base: str):
        command = [sys.executable, "-m", "benchmarks.finetuning", options.source, options.target, "--serve", name]
        command += ["--base", base, "--threads", str(options.threads), "--pairs", str(options.pairs)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.turns: list[dict[str, float]] = []

    def answer(self) -> dict[str, Any]:
        """Read its next line of JSON."""
        for line in self.process.stdout or []:
            if line.startswith('{"'):
                return json.loads(line)
        raise RuntimeError("A contender has ended before its turn.")

    def say(self, seconds: float) -> dict[str, Any]:
        """Give it a turn, or with 0 none any more; return its answer."""
        print(f"{seconds:g}", file=self.process.stdin, flush=True)
        return self.answer()


def started(options: argparse.Namespace, base: str) -> Iterator[Contender]:
    """Start the contenders one after the other: the first fills the caches."""
    for name in options.only or CONTENDERS:
        contender = Contender(name, options, base)
        contender.answer()
        yield contender


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let all contenders train in turn, then score them.

    Returns:
        By contender: its turns, the medians of its speeds, its loss.
    """
    base = folder / options.model
    texts = [line.text.strip() for path in (options.source, options.target) for line in number_lines(path)]
    build_base(options.model, texts, base)
    names, contenders = options.only or list(CONTENDERS), []
    try:
        contenders = list(started(options, str(base)))
        for number in range(options.rounds + 1):  # the first turn warms up
            for name, contender in zip(names, contenders):
                turn = contender.say(options.seconds if number else min(3.0, options.seconds))
                contender.turns += [turn] * bool(number)
                print(f"{number} {name:38} {turn['tokens'] / turn['wall']:9,.0f} tok/s", flush=True)
        losses = [contender.say(0)["loss"] for contender in contenders]
    finally:
        for contender in contenders:
            contender.process.kill()
            contender.process.wait()
    clock = "wall" if torch.cuda.is_available() else "cpu"
    return {
        name: {
            "tokens_per_second": statistics.median(turn["tokens"] / turn[clock] for turn in contender.turns),
            "loss": loss,
            "turns": contender.turns,
        }
        for name, contender, loss in zip(names, contenders, losses)
    }


def main() -> None:
    """Measure, print the table, add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="text file, one sentence a line")
    parser.add_argument("target", help="its translation, line by line")
    parser.add_argument("--model", default="marian-opus", choices=["t5-small", *(f"marian-{size}" for size in SIZES)])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each turn")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="these contenders alone")
    parser.add_argument("--output", help="file of results (JSON), to which these are added")
    parser.add_argument("--serve", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    first = next(iter(found.values()))["tokens_per_second"]
    print(f"\n{options.model:38} {'tok/s':>9} {'ours is faster by':>18} {'loss':>6}")
    for name, values in found.items():
        speed = values["tokens_per_second"]
        print(f"{name:38} {speed:9,.0f} {first / speed:18.2f} {values['loss']:6.3f}")
    if options.output:
        path = Path(options.output)
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]
        results[options.model] = {
            "command": f"python -m benchmarks.finetuning {shlex.join(words)}",
            "environment": describe_environment(),
            "threads": options.threads,
            "load": os.getloadavg(),
            "contenders": found,
        }
        write_atomically(path, json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
