"""Training speed beside the peers, in one run: real tokens per second, A B A B, on the same tokenised corpus.

    python -m benchmarks.training train.de.gz train.en.gz --threads 1 --output benchmarks/results/training-cpu.json

Every contender trains a model of the same dimensions with the settings that its users would choose. "Real tokens" are
source and target tokens with `</s>`, without padding. Machines are noisy: compare ratios within a run, not figures of
two runs.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from fun_transformer.analysis import flops_per_token
from training.args import parse_arguments
from training.batching import TokenBudgetBatches, pad_batch
from training.data import load_splits, tokenize_splits
from training.loop import TrainingLoop
from training.objectives import OBJECTIVES
from training.optimization import build_optimizer
from training.report import describe_environment
from training.rows import TokenRows
from training.train import build_accelerator, build_model, build_tokenizer

DIMS = {
    "d_model": 256,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "dropout": 0.1,
}
SMOOTHING = 0.1
Train = Callable[[float], tuple[int, float]]  # seconds to train for -> real tokens seen, last loss


class Corpus:
    """The tokenised corpus and endless batches of it, bucketed or of random rows."""

    def __init__(self, arguments, objective, splits, tokenizer):
        self.arguments, self.objective, self.splits, self.tokenizer = arguments, objective, splits, tokenizer
        self.rows = TokenRows(splits["train"])
        self.sampler = TokenBudgetBatches(
            self.rows.source_lengths, self.rows.target_lengths, arguments.training.batch_tokens, seed=1
        )

    def bucketed(self) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of about equally many tokens, from rows of about equal length."""
        epoch = 0
        while True:
            for chosen in self.sampler.batches(epoch):
                yield pad_batch([self.rows[row] for row in chosen], self.tokenizer.pad_token_id)
            epoch += 1


def real_tokens(batch: dict[str, torch.Tensor]) -> int:
    """Source and target tokens, without padding."""
    return int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())


def shift(labels: torch.Tensor, corpus: Corpus) -> torch.Tensor:
    """Decoder input of the peers: <s> and all labels but the last, padded."""
    start = labels.new_full((len(labels), 1), corpus.tokenizer.bos_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, corpus.tokenizer.pad_token_id)


def bare_loop(corpus: Corpus, model: nn.Module, logits: Callable, precision: str) -> Train:
    """The loop that people write by hand: bucketed batches, autocast, fused AdamW, clipped gradients."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    batches = corpus.bucketed()
    model.train()

    def train(seconds: float) -> tuple[int, float]:
        tokens, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            batch = next(batches)
            labels = batch["labels"]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                scores = logits(batch, shift(labels, corpus))
                loss = nn.functional.cross_entropy(
                    scores.flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING, ignore_index=-100
                )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += real_tokens(batch)
        return tokens, float(loss.detach())

    return train


def build_marian(corpus: Corpus, attention: str) -> MarianMTModel:
    """A Marian of the same dimensions."""
    tokenizer = corpus.tokenizer
    config = MarianConfig(
        **DIMS,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
        scale_embedding=True,
        activation_function="relu",
        max_position_embeddings=512,
        attn_implementation=attention,
    )
    return MarianMTModel(config)


def marian(precision: str, attention: str) -> Callable[[Corpus], Train]:
    """transformers' own translation model in a bare loop."""

    def build(corpus: Corpus) -> Train:
        model = build_marian(corpus, attention)

        def logits(batch, decoder_input_ids):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            return model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits

        return bare_loop(corpus, model, logits, precision)

    return build


class TorchTransformer(nn.Module):
    """torch.nn.Transformer with embeddings and an output layer, as its tutorial puts it together."""

    def __init__(self, vocab_size: int, pad_token_id: int):
        super().__init__()
        self.pad_token_id, d_model = pad_token_id, DIMS["d_model"]
        self.embed = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embed.weight, std=d_model**-0.5)
        self.positions = nn.Parameter(torch.randn(512, d_model) * 0.02)
        self.dropout = nn.Dropout(DIMS["dropout"])
        self.transformer = nn.Transformer(
            d_model,
            DIMS["encoder_attention_heads"],
            DIMS["encoder_layers"],
            DIMS["decoder_layers"],
            DIMS["encoder_ffn_dim"],
            DIMS["dropout"],
            batch_first=True,
        )

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, len) -> (batch, len, d_model)."""
        scale = self.embed.embedding_dim**0.5
        return self.dropout(self.embed(ids) * scale + self.positions[: ids.shape[1]])

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(batch, source_len), (batch, target_len) -> (batch, target_len, vocab_size)."""
        padding = source == self.pad_token_id
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=torch.bool)
        hidden = self.transformer(
            self.embedded(source),
            self.embedded(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return nn.functional.linear(hidden, self.embed.weight)


def torch_transformer(corpus: Corpus) -> Train:
    """torch's own Transformer, bf16 autocast, in a bare loop."""
    model = TorchTransformer(len(corpus.tokenizer), corpus.tokenizer.pad_token_id)
    return bare_loop(corpus, model, lambda batch, target: model(batch["input_ids"], target), "bf16")


class StopAfter(TrainerCallback):
    """Ends a Trainer's run after some seconds from its first step."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.end = time.monotonic() + self.seconds

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = time.monotonic() >= self.end


def seq2seq_trainer(corpus: Corpus) -> Train:
    """Marian under Seq2SeqTrainer as it comes; its default batch of 8 rows would be slower still than the 64 here."""
    model = build_marian(corpus, "sdpa")
    seen = 0
    pad = DataCollatorForSeq2Seq(corpus.tokenizer, model=model)

    def collate(rows):
        nonlocal seen
        batch = pad(rows)
        seen += real_tokens(batch)
        return batch

    def train(seconds: float) -> tuple[int, float]:
        nonlocal seen
        seen = 0
        with tempfile.TemporaryDirectory() as folder:
            arguments = Seq2SeqTrainingArguments(
                folder,
                per_device_train_batch_size=64,
                max_steps=10**6,
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
            )
            trainer = Seq2SeqTrainer(
                model,
                arguments,
                data_collator=collate,
                train_dataset=corpus.splits["train"],
                callbacks=[StopAfter(seconds)],
            )
            loss = trainer.train().training_loss
            return seen, loss

    return train


def ours(*overrides: str) -> Callable[[Corpus], Train]:
    """This project's training loop, with its defaults."""

    def build(corpus: Corpus) -> Train:
        arguments = parse_arguments([*corpus.command, *overrides])
        folder = Path(tempfile.mkdtemp())
        AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
        accelerator = build_accelerator(arguments, folder)
        torch.set_num_threads(corpus.threads)
        model = build_model(arguments, corpus.objective, corpus.tokenizer, accelerator.device)
        optimizer = build_optimizer(model, 5e-4, (0.9, 0.98), 1e-9, 0.01)
        model, optimizer = accelerator.prepare(model, optimizer)
        loop = TrainingLoop(
            accelerator, model, optimizer, corpus.tokenizer, corpus.objective, corpus.splits, arguments, folder, 0.0
        )
        loop.batches = loop.sampler.batches(0)
        stream = loop.micro_batches()

        def train(seconds: float) -> tuple[int, float]:
            tokens, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                loss, count, _ = loop.train_step(stream, 0.0)
                tokens += count
            return tokens, float(loss)

        return train

    return build


CONTENDERS: dict[str, Callable[[Corpus], Train]] = {
    "ours": ours(),
    "ours fp32": ours("--training.precision", "fp32"),
    "Marian, bf16, eager": marian("bf16", "eager"),
    "Marian, bf16, sdpa": marian("bf16", "sdpa"),
    "Marian, fp32, sdpa": marian("fp32", "sdpa"),
    "torch.nn.Transformer, bf16": torch_transformer,
    "Marian, Seq2SeqTrainer": seq2seq_trainer,
}


def matmul_rate(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """FLOP a second of the model's largest kind of product, (4096, 256) x (256, 1024)."""
    left, right = torch.randn(4096, 256).to(dtype), torch.randn(256, 1024).to(dtype)
    out, count, start = left @ right, 0, time.monotonic()
    while time.monotonic() - start < seconds:
        torch.mm(left, right, out=out)
        count += 1
    return count * 2 * 4096 * 256 * 1024 / (time.monotonic() - start)


def main() -> None:
    """Run the contenders in turn, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="text file, one sentence a line (.gz is read as it is)")
    parser.add_argument("target", help="its translation, line by line")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--batch_tokens", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="these contenders alone")
    parser.add_argument("--output", help="where to write the results (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command = [f"--data.train.source={options.source}", f"--data.train.target={options.target}"]
    command += [f"--tokenizer.vocab_size={options.vocab_size}", f"--training.batch_tokens={options.batch_tokens}"]
    command += [f"--model.{name}={value}" for name, value in DIMS.items()] + ["--data.bad_rows=drop"]
    command += [f"--model.label_smoothing={SMOOTHING}"]
    arguments = parse_arguments([*command, "--output_dir", "unused"])
    splits, _ = load_splits(arguments.data, arguments.training.seed)
    objective = OBJECTIVES["seq2seq"](splits)
    tokenizer = build_tokenizer(arguments, objective, splits)
    splits, _ = tokenize_splits(splits, tokenizer, arguments.data, objective.encode)
    corpus = Corpus(arguments, objective, splits, tokenizer)
    corpus.command, corpus.threads = [*command, "--output_dir", "unused"], options.threads

    names = options.only or list(CONTENDERS)
    trains = {}
    for name in names:
        torch.manual_seed(1)
        trains[name] = CONTENDERS[name](corpus)
        torch.set_num_threads(options.threads)
        trains[name](3.0)  # the first steps allocate
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            wall, cpu = time.monotonic(), time.process_time()
            tokens, loss = trains[name](options.seconds)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            turns[name].append({"tokens": tokens, "wall": wall, "cpu": cpu, "loss": loss})
            print(f"{turn + 1} {name:28} {tokens / wall:8,.0f} tok/s {tokens / cpu:8,.0f} tok/cpu-s  loss {loss:.2f}")
    config = build_model(arguments, objective, tokenizer, torch.device("cpu")).config
    flops = flops_per_token(config, corpus.rows.source_lengths.mean(), corpus.rows.target_lengths.mean())
    limits = {str(dtype).removeprefix("torch."): matmul_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{flops / 1e6:.1f} MFLOP a token;", {name: f"{rate / 1e9:.0f} GFLOP/s" for name, rate in limits.items()})
    rates = {name: statistics.median(t["tokens"] / t["cpu"] for t in turns[name]) for name in names}
    for name in names:
        walls = statistics.median(t["tokens"] / t["wall"] for t in turns[name])
        print(f"{name:28} {walls:8,.0f} tok/s {rates[name]:8,.0f} tok/cpu-s {rates[name] / rates[names[0]]:6.2f}")
    if options.output:
        results = {
            "command": f"python -m benchmarks.training {shlex.join(sys.argv[1:])}",
            "environment": describe_environment(),
            "threads": options.threads,
            "load": os.getloadavg(),
            "flops_per_token": flops,
            "matmul_flops": limits,
            "turns": turns,
        }
        Path(options.output).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
