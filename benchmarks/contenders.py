"""Who takes part in `benchmarks.training`: this trainer, Marian, torch.nn.Transformer, Seq2SeqTrainer, JoeyNMT, eole.

Each is built from the same tokenised corpus, and trains for as many seconds as it is told. A name before the first
comma is one system; what follows is the settings that it is tried with.
"""

import argparse
import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import TorchDynamoPlugin
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from benchmarks import peers
from benchmarks.race import Train
from fun_transformer.training.data.batches import TokenBudgetSampler, pad_batch
from fun_transformer.training.data.rows import TokenRows
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.recipe.defaults import resolve
from fun_transformer.training.recipe.model_config import PACKING, has_fast_bf16
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import build_loop, prepare

SIZES = {
    "small": (256, 3, 4, 1024),
    "base": (512, 6, 8, 2048),
    "big": (1024, 6, 16, 4096),
}  # d_model, layers, heads, ffn_dim
SMOOTHING = 0.1
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dimensions(size: str) -> dict[str, float]:
    """Fields of a model's configuration; Marian and ours have the same names."""
    d_model, layers, heads, ffn_dim = SIZES[size]
    both = {"layers": layers, "attention_heads": heads, "ffn_dim": ffn_dim}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    return {"d_model": d_model, "dropout": 0.1, **sides}


def recipe_of(options: argparse.Namespace) -> list[str]:
    """Return the recipe that a command line asks for, in words; a contender neither evaluates nor saves."""
    words = [f"--data.train.source={options.source}", f"--data.train.target={options.target}", "--data.bad_rows=drop"]
    words += [f"--tokenizer.vocab_size={options.vocab_size}", "--output_dir=unused"]
    words += [f"--model.{name}={value}" for name, value in dimensions(options.size).items()]
    words += [f"--model.label_smoothing={SMOOTHING}", f"--training.threads={options.threads}"]
    words += [f"--training.batch_tokens={options.batch_tokens}", "--training.gradient_accumulation_steps=1"]
    words += ["--training.learning_rate=5e-4", "--training.warmup_steps=400"]
    return [*words, "--training.eval_steps=500", "--training.save_steps=500"]


class Corpus:
    """The tokenised corpus and endless bucketed batches of it.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace):
        self.dims, self.threads = dimensions(options.size), options.threads
        self.command = [*recipe_of(options), "--training.packing=null"]
        self.arguments = arguments = parse_arguments(self.command)
        self.run, _ = prepare(arguments, build_accelerator(arguments))
        self.tokenizer = self.run.tokenizer
        self.rows = TokenRows(self.run.splits["train"])
        self.sampler = TokenBudgetSampler(
            self.rows.source_lengths, self.rows.target_lengths, arguments.training.batch_tokens, seed=1
        )

    def resized(self, dims: dict[str, float], batch_tokens: int) -> "Corpus":
        """Return the same corpus for a model of other dimensions and batches of another size."""
        other = copy.copy(self)
        other.dims = self.dims | dims
        other.command = [*self.command, f"--training.batch_tokens={batch_tokens}"]
        other.command += [f"--model.{name}={value}" for name, value in dims.items()]
        lengths = self.rows.source_lengths, self.rows.target_lengths
        other.sampler = TokenBudgetSampler(*lengths, batch_tokens, seed=1)
        return other

    def bucketed(self) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
        """Batches of about equally many tokens, from rows of about equal length, and how many of them are real."""
        epoch = 0
        while True:
            for chosen in self.sampler.batches(epoch):
                batch = pad_batch([self.rows[row] for row in chosen], self.tokenizer.pad_token_id)
                there = {name: tensor.to(DEVICE, non_blocking=True) for name, tensor in batch.items()}
                yield there, real_tokens(batch)
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
    model.to(DEVICE).train()

    def train(seconds: float) -> int:
        tokens, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            batch, real = next(batches)
            labels = batch["labels"]
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
                scores = logits(batch, shift(labels, corpus))
                loss = nn.functional.cross_entropy(
                    scores.flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING, ignore_index=-100
                )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += real
        synchronize()
        return tokens

    return train


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def build_marian(corpus: Corpus, attention: str) -> MarianMTModel:
    """A Marian of the same dimensions."""
    tokenizer = corpus.tokenizer
    config = MarianConfig(
        **corpus.dims,
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


def marian(precision: str, attention: str, compile: bool = False, cudnn: bool = True) -> Callable[[Corpus], Train]:
    """transformers' own translation model in a bare loop; without cuDNN, sdpa has nothing to plan for a new size."""

    def build(corpus: Corpus) -> Train:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        model = build_marian(corpus, attention)
        if compile:
            model.compile(dynamic=True)

        def logits(batch, decoder_input_ids):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            return model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits

        return bare_loop(corpus, model, logits, precision)

    return build


class TorchTransformer(nn.Module):
    """torch.nn.Transformer with embeddings and an output layer, as its tutorial puts it together."""

    def __init__(self, dims: dict, vocab_size: int, pad_token_id: int):
        super().__init__()
        self.pad_token_id, d_model = pad_token_id, dims["d_model"]
        self.embed = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embed.weight, std=d_model**-0.5)
        self.positions = nn.Parameter(torch.randn(512, d_model) * 0.02)
        self.dropout = nn.Dropout(dims["dropout"])
        self.transformer = nn.Transformer(
            d_model,
            dims["encoder_attention_heads"],
            dims["encoder_layers"],
            dims["decoder_layers"],
            dims["encoder_ffn_dim"],
            dims["dropout"],
            batch_first=True,
        )

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, len) -> (batch, len, d_model)."""
        scale = self.embed.embedding_dim**0.5
        return self.dropout(self.embed(ids) * scale + self.positions[: ids.shape[1]])

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(batch, source_len), (batch, target_len) -> (batch, target_len, vocab_size)."""
        padding = source == self.pad_token_id
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], target.device, torch.bool)
        hidden = self.transformer(
            self.embedded(source),
            self.embedded(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return nn.functional.linear(hidden, self.embed.weight)


def torch_transformer(precision: str) -> Callable[[Corpus], Train]:
    """torch's own Transformer in a bare loop."""

    def build(corpus: Corpus) -> Train:
        model = TorchTransformer(corpus.dims, len(corpus.tokenizer), corpus.tokenizer.pad_token_id)
        return bare_loop(corpus, model, lambda batch, target: model(batch["input_ids"], target), precision)

    return build


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

    def train(seconds: float) -> int:
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
                train_dataset=corpus.run.splits["train"],
                callbacks=[StopAfter(seconds)],
            )
            trainer.train()
            return seen

    return train


def ours(*overrides: str, compile: bool = False) -> Callable[[Corpus], Train]:
    """This project's training loop, with its defaults and a row for each sentence."""

    def build(corpus: Corpus) -> Train:
        arguments = resolve(parse_arguments([*corpus.command, *overrides]), len(corpus.rows), DEVICE)
        AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
        accelerator = build_accelerator(arguments)
        if compile:
            graphs = TorchDynamoPlugin(backend="inductor", mode="reduce-overhead", dynamic=False)
            accelerator.state.dynamo_plugin = graphs  # as in one_gpu_compiled.yaml
        loop = build_loop(dataclasses.replace(corpus.run, accelerator=accelerator, arguments=arguments))
        steps = loop.steps()

        def train(seconds: float) -> int:
            tokens, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                tokens += next(steps).tokens
            synchronize()
            return tokens

        return train

    return build


PACKED = f"--training.packing={PACKING[DEVICE.type]}"  # what the trainer chooses where bf16 is fast
CONTENDERS: dict[str, Callable[[Corpus], Train]] = {
    "ours, packed, compiled": ours(PACKED, compile=True),
    "ours, packed": ours(PACKED),
    "ours": ours(),
    "ours, fp32": ours("--training.precision", "fp32"),
    "Marian, bf16, eager": marian("bf16", "eager"),
    "Marian, bf16, eager, compiled": marian("bf16", "eager", compile=True),
    "Marian, bf16, sdpa": marian("bf16", "sdpa"),
    "Marian, bf16, sdpa without cuDNN": marian("bf16", "sdpa", cudnn=False),
    "Marian, bf16, sdpa, compiled": marian("bf16", "sdpa", compile=True),
    "Marian, fp32, eager": marian("fp32", "eager"),
    "Marian, fp32, sdpa": marian("fp32", "sdpa"),
    "torch.nn.Transformer, bf16": torch_transformer("bf16"),
    "torch.nn.Transformer, fp32": torch_transformer("fp32"),
    "Seq2SeqTrainer, Marian": seq2seq_trainer,
    "JoeyNMT": peers.JoeyNMT,
    "eole": peers.Eole,
}


def default_contenders() -> list[str]:
    """All that are installed and made for this device."""
    words = ["compiled", "cuDNN"] if DEVICE.type == "cpu" else []  # slow to start there; not there
    if not has_fast_bf16(DEVICE):
        words += ["bf16", "ours, fp32", "packed"]  # "ours" is in fp32, and packed rows are slow
    return [name for name in CONTENDERS if not any(word in name for word in words + peers.missing())]
