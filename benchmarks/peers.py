"""JoeyNMT and eole for `benchmarks.training`: their own models, losses, optimizers, batches and trainers, in process.

    pip install pydantic matplotlib
    pip install --no-deps joeynmt==2.3.0 eole==0.6.4 sentencepiece subword-nmt pyonmttok

Without `--no-deps` the two cannot live together: one pins protobuf below 3.21, the other at 7.36.2; neither needs it
here. Both read text, so they get the token ids as words. Both measure a batch by its longer side, padding included,
where our budget is for both sides: they get half of it. Nothing is validated or saved. JoeyNMT computes in fp32 on a
CPU and in fp16 on a GPU, all that it offers, and does not sort by length. eole computes in 16 bits where that is fast,
sorts by length within an epoch, and has a pre-norm decoder only.
"""

import importlib.util
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from fun_transformer.conversion import Converted, Options, find_reader
from fun_transformer.training.recipe.model_config import has_fast_bf16

PACKAGES = {"JoeyNMT": "joeynmt", "eole": "eole"}
MAX_GRAD_NORM = 1.0
NEVER = 10**9  # steps


def missing() -> list[str]:
    """The peers that are not installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is None]


def quieten(package: str) -> None:
    """Silences a package's progress messages."""
    for name in logging.root.manager.loggerDict:
        if name.split(".")[0] == package:
            logging.getLogger(name).setLevel(logging.WARNING)


def write_words(corpus: Any, folder: Path, source_end: str = "") -> None:
    """Writes the ids as words: train.src and train.trg, and all words that the peers do not add themselves, vocab.txt.

    Args:
        corpus: A `benchmarks.contenders.Corpus`. Its rows end in `</s>`, which is left out: the peers append it ...
        folder: Where to write.
        source_end: ... but eole not to sources: this is.
    """
    tokenizer = corpus.tokenizer
    words = [str(token_id) for token_id in range(len(tokenizer))]
    words[tokenizer.unk_token_id] = "<unk>"
    for name, column, end in (("src", "input_ids", source_end), ("trg", "labels", "")):
        lines = [" ".join(words[token_id] for token_id in ids[:-1]) + end for ids in corpus.splits["train"][column]]
        (folder / f"train.{name}").write_text("\n".join(lines) + "\n")
    theirs = {tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    (folder / "vocab.txt").write_text("\n".join(word for i, word in enumerate(words) if i not in theirs) + "\n")


def joeynmt_config(corpus: Any, folder: str) -> dict[str, Any]:
    """What a user writes into JoeyNMT's YAML file."""
    dims, gpu = corpus.dims, torch.cuda.is_available()
    stacks = {
        side: {
            "type": "transformer",
            "num_layers": dims[f"{side}_layers"],
            "num_heads": dims[f"{side}_attention_heads"],
            "hidden_size": dims["d_model"],
            "ff_size": dims[f"{side}_ffn_dim"],
            "embeddings": {"embedding_dim": dims["d_model"], "scale": True},
            "dropout": dims["dropout"],
            "layer_norm": "post",
        }
        for side in ("encoder", "decoder")
    }
    languages = {lang: {"lang": lang, "level": "word", "voc_file": f"{folder}/vocab.txt"} for lang in ("src", "trg")}
    training = {
        "optimizer": "adam",
        "scheduling": "warmupinversesquareroot",  # "plateau" fails with torch 2.13
        "learning_rate": corpus.arguments.training.learning_rate,
        "learning_rate_warmup": corpus.arguments.training.warmup_steps,
        "clip_grad_norm": MAX_GRAD_NORM,
        "normalization": "tokens",
        "label_smoothing": corpus.arguments.model["label_smoothing"],
        "batch_type": "token",
        "batch_size": corpus.arguments.training.batch_tokens // 2,
        "validation_freq": NEVER,
        "epochs": NEVER,
    }
    return {
        "name": "peer",
        "model_dir": folder,
        "use_cuda": gpu,
        "fp16": gpu,
        "data": {"train": f"{folder}/train", **languages},
        "model": {"initializer": "xavier_uniform", "tied_embeddings": True, "tied_softmax": True, **stacks},
        "training": training,
        "testing": {},
    }


class JoeyNMT:
    """JoeyNMT's TrainManager.

    Args:
        corpus: As for `write_words`.
        clock: Seconds, from any beginning.
    """

    source_end = ""

    def __init__(self, corpus: Any, clock: Callable[[], float] = time.monotonic):
        from joeynmt.config import parse_global_args
        from joeynmt.prediction import prepare
        from joeynmt.training import TrainManager

        quieten("joeynmt")

        class TimedManager(TrainManager):
            """Counts tokens, ends by the clock and saves nothing."""

            def _train_step(self, batch):
                self.tokens += int(batch.src_length.sum()) + batch.ntokens
                self.stats.is_max_update = clock() >= self.end  # stops after this step
                return super()._train_step(batch)

            def _save_checkpoint(self, new_best, score):
                pass

        self.clock, self.folder = clock, Path(tempfile.mkdtemp())
        write_words(corpus, self.folder)
        self.config = json.dumps(joeynmt_config(corpus, str(self.folder)))
        args = parse_global_args(json.loads(self.config))  # which changes what it is given
        args = args._replace(n_gpu=min(args.n_gpu, 1))  # it would take all
        self.model, self.data, _, _ = prepare(args, rank=0, mode="train")
        self.manager = TimedManager(
            0, self.model, self.folder, args.device, args.n_gpu, autocast=args.autocast, train_args=args.train
        )

    def __call__(self, seconds: float) -> int:
        """Train until the seconds are over; return the real tokens."""
        self.manager.tokens, self.manager.end = 0, self.clock() + seconds
        self.manager.train_and_validate(self.data, self.data)
        self.manager.stats.epochs += 1  # the next turn has another order
        return self.manager.tokens

    def converted(self) -> Converted:
        """Its model as one of ours; the tokenizer has ids as words."""
        (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        torch.save({"model_state": self.model.state_dict()}, self.folder / "latest.ckpt")
        return find_reader(self.folder).read(self.folder, Options())


def eole_config(corpus: Any, folder: str, compute_dtype: str) -> dict[str, Any]:
    """What a user writes into eole's YAML file."""
    dims, settings = corpus.dims, corpus.arguments.training
    model = {
        "architecture": "transformer",
        "hidden_size": dims["d_model"],
        "heads": dims["encoder_attention_heads"],
        "transformer_ff": dims["encoder_ffn_dim"],
        "encoder": {"layers": dims["encoder_layers"]},
        "decoder": {"layers": dims["decoder_layers"]},
        "embeddings": {"word_vec_size": dims["d_model"], "position_encoding_type": "SinusoidalInterleaved"},
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "add_qkvbias": True,
        "add_ffnbias": True,
    }
    training = {
        "compute_dtype": compute_dtype,
        "optim": "adam",
        # Its noam schedule rises and falls; the factor makes its peak the learning rate.
        "learning_rate": settings.learning_rate * (settings.warmup_steps * dims["d_model"]) ** 0.5,
        "decay_method": "noam",
        "warmup_steps": settings.warmup_steps,
        "max_grad_norm": MAX_GRAD_NORM,
        "normalization": "tokens",
        "dropout": [dims["dropout"]],
        "attention_dropout": [dims["dropout"]],
        "label_smoothing": corpus.arguments.model["label_smoothing"],
        "param_init_method": "xavier_uniform",
        "batch_type": "tokens",
        "batch_size": corpus.arguments.training.batch_tokens // 2,
        "bucket_size": len(corpus.splits["train"]),  # an epoch
        "num_workers": 0,  # a worker's seconds would not be counted
        "valid_steps": NEVER,
        "gpu_ranks": [0] if torch.cuda.is_available() else [],
        "model_path": f"{folder}/model",
    }
    files = {"path_src": f"{folder}/train.src", "path_tgt": f"{folder}/train.trg", "transforms": []}
    data = {"src_vocab": f"{folder}/vocab.txt", "share_vocab": True, "data": {"train": files}}
    return {**data, "model": model, "training": training}


class Eole:
    """eole's Trainer.

    Args:
        corpus: As for `write_words`.
        clock: Seconds, from any beginning.
    """

    source_end = " </s>"  # which it does not append by itself

    def __init__(self, corpus: Any, clock: Callable[[], float] = time.monotonic):
        from eole.config.run import TrainConfig
        from eole.inputters.dynamic_iterator import build_dynamic_dataset_iter
        from eole.models.model import get_model_class
        from eole.models.model_saver import build_model_saver
        from eole.train_single import TrainingInitializer
        from eole.trainer import build_trainer
        from eole.utils.optimizers import Optimizer

        self.clock, self.folder, self.saved = clock, Path(tempfile.mkdtemp()), 0
        write_words(corpus, self.folder, self.source_end)
        gpu = torch.cuda.is_available()
        fast = has_fast_bf16(torch.device("cuda" if gpu else "cpu"))
        config = eole_config(corpus, str(self.folder), "fp16" if gpu else "bf16" if fast else "fp32")
        config = TrainConfig(**config)
        context = TrainingInitializer(config).initialize()
        rank = 0 if gpu else -1
        model_class = get_model_class(config.model)
        model = model_class.for_training(config.model, context.vocabs, config.training, device_id=rank)
        optimizer = Optimizer.from_config(model, config)
        self.trainer = build_trainer(config, rank, model, context.vocabs, optimizer)
        self.saver = build_model_saver(config, model, context.vocabs, optimizer, rank, context.transforms)
        self.batches = iter(build_dynamic_dataset_iter(config, context.transforms, context.vocabs, device_id=rank))
        quieten("eole")

    def __call__(self, seconds: float) -> int:
        """Train until the seconds are over; return the real tokens."""

        def until(end: float) -> Iterator[Any]:
            while self.clock() < end:
                yield next(self.batches)

        statistics = self.trainer.train(until(self.clock() + seconds), train_steps=0, valid_steps=NEVER)
        return statistics.n_src_tokens + statistics.n_tokens

    def converted(self) -> Converted:
        """Its model as one of ours; the tokenizer has ids as words."""
        self.saved += 1
        self.saver.save(self.saved)
        return find_reader(self.folder / "model").read(self.folder / "model", Options(checkpoint=f"step_{self.saved}"))
