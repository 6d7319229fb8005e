"""Train a model from a recipe: `accelerate launch -m training.train hub_configs/NAME/recipe.yaml`.

From sentence pairs to a model folder that `from_pretrained` and `pipeline()` take: read and check the data, train a
tokenizer unless the recipe names one, build the model, train it, score it on the test split, write it with its card.
"""

import json
import os
import shlex
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import ProjectConfiguration, parse_flag_from_env, set_seed
from datasets import DatasetDict
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from fun_transformer import FunTransformerConfig, FunTransformerTokenizer
from fun_transformer.analysis import flops_per_token
from training import defaults
from training.args import GenerationArguments, RunArguments, parse_arguments
from training.checkpoints import CheckpointError, find_checkpoint, is_lost_process, publish, write_whole, writing
from training.data import load_splits, token_lengths, tokenize_splits
from training.evaluate import evaluate_split
from training.loop import Interrupted, TrainingLoop, show_scores
from training.objectives import OBJECTIVES, Objective
from training.optimization import build_optimizer
from training.report import describe_data, describe_environment, draw_curve, write_card, write_start
from training.resuming import (
    ErrorOfMainProcess,
    check_recipe,
    empty_run,
    is_run,
    main_process_first,
    on_main_process,
)
from training.sharding import shard
from training.train_tokenizer import train_tokenizer


def use_all_cores(processes_here: int) -> None:
    """Share this machine's cores among its processes: `accelerate launch` leaves one to each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // processes_here))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def build_accelerator(arguments: RunArguments) -> Accelerator:
    """The engine: device, precision, processes and trackers."""
    waiting = timedelta(minutes=arguments.training.timeout_minutes)
    # Without this, several processes on a machine without accelerators would each train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=waiting)
    if state.device.type == "cpu":
        use_all_cores(int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes)))
    precision = arguments.training.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(state.device) else "fp32"
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with="tensorboard",
        project_config=ProjectConfiguration(arguments.output_dir, logging_dir=arguments.output_dir),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        engine = accelerator.state.deepspeed_plugin.deepspeed_config
        engine["gradient_clipping"] = arguments.training.max_grad_norm or 0.0  # it clips by itself
        engine["train_micro_batch_size_per_gpu"] = 1  # it insists on a number; ours differ in size
    return accelerator


def prepare_output_dir(arguments: RunArguments) -> tuple[Path, Path | None]:
    """Make sure that nothing is overwritten by mistake.

    Returns:
        The run's folder, and the checkpoint to go on from.

    Raises:
        ValueError: When the folder is missing from the recipe, or has something in it and nobody said what to do.
    """
    if not arguments.output_dir:
        raise ValueError("output_dir is missing: say where the run writes, as in --output_dir runs/NAME.")
    output_dir = Path(arguments.output_dir)
    checkpoint = find_checkpoint(output_dir, arguments.resume)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"output_dir={output_dir} is a file. Name a folder.")
    if checkpoint is None and output_dir.exists() and any(output_dir.iterdir()):
        died_young = arguments.resume == "auto" and is_run(output_dir)  # before its first checkpoint
        if not arguments.overwrite and not died_young:
            raise ValueError(
                f"output_dir={output_dir} is not empty. Go on with --resume, empty it with --overwrite, "
                "or name another folder."
            )
        if not is_run(output_dir):
            raise ValueError(
                f"output_dir={output_dir} holds something that is not a training run, so --overwrite does not empty "
                "it. Empty it yourself, or name another folder."
            )
    return output_dir, checkpoint


def build_tokenizer(arguments: RunArguments, objective: Objective, splits: DatasetDict) -> FunTransformerTokenizer:
    """Load the tokenizer that the recipe names, or train one on the training split."""
    settings = arguments.tokenizer
    if settings.path:
        tokenizer = AutoTokenizer.from_pretrained(settings.path)
    else:
        tokenizer = train_tokenizer(
            **objective.texts(splits["train"]),
            type=settings.type,
            vocab_size=settings.vocab_size,
            target_type=settings.target_type,
            lowercase=settings.lowercase,
            min_frequency=settings.min_frequency,
        )
    objective.prepare_tokenizer(tokenizer)
    return tokenizer


def build_model(arguments: RunArguments, objective: Objective, tokenizer, device: torch.device) -> PreTrainedModel:
    """A model with fresh weights, as large as the recipe says and with a vocabulary as large as the tokenizer's.

    Args:
        arguments: The recipe.
        objective: Decides the head.
        tokenizer: Gives the vocabulary and the special tokens.
        device: Where it will be trained.

    Raises:
        ValueError: When the recipe's vocabulary is smaller than the tokenizer's.
    """
    fields = dict(arguments.model)
    path = fields.pop("config", None)
    if path:
        fields = json.loads(Path(path).read_text(encoding="utf-8")) | fields
    needed, given = len(tokenizer), arguments.model.get("vocab_size")
    if given is not None and given < needed:
        raise ValueError(f"model.vocab_size={given} is smaller than the tokenizer's {needed}. Leave it out.")
    fields |= {
        "vocab_size": given or needed,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
    }
    config = FunTransformerConfig(**fields, **objective.config_fields())
    # Measured on CPUs with bf16: step-by-step attention trains faster than the fused kernel at sentence lengths.
    kernel = arguments.training.attn_implementation or ("eager" if device.type == "cpu" else "sdpa")
    model = objective.model_class.from_config(config, attn_implementation=kernel)
    if model.can_generate():
        model.generation_config = build_generation_config(arguments.generation, model.config)
    if arguments.training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def build_generation_config(generation: GenerationArguments, config: FunTransformerConfig) -> GenerationConfig:
    """How the finished model generates unless it is told otherwise."""
    return GenerationConfig(
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        length_penalty=generation.length_penalty if generation.num_beams > 1 else None,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id if config.is_encoder_decoder else None,
    )


def train(arguments: RunArguments, command: str) -> dict[str, dict[str, Any]]:
    """Run a recipe.

    Args:
        arguments: The checked recipe.
        command: What to write into the model card as the command of this run.

    Returns:
        The scores by split.

    Raises:
        ValueError: When arguments or data are not usable; nothing has been trained then.
        Interrupted: After Ctrl-C or SIGTERM.
    """
    accelerator = build_accelerator(arguments)
    output_dir, checkpoint = on_main_process(prepare_output_dir, arguments)
    settings = arguments.training
    set_seed(settings.seed)
    logging.disable_progress_bar()  # of saving and loading: there is one bar, that of the training

    splits, row_report = main_process_first(load_splits, arguments.data, settings.seed)
    objective = OBJECTIVES[arguments.objective](splits)
    pairs = len(splits["train"])
    chosen = defaults.choose(arguments, pairs)
    arguments = defaults.fill(arguments, chosen)
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(output_dir / "tokenizer")
    else:
        tokenizer = on_main_process(build_tokenizer, arguments, objective, splits)
    splits, token_report = main_process_first(tokenize_splits, splits, tokenizer, arguments.data, objective.encode)
    row_report = row_report.followed_by(token_report)
    accelerator.print(row_report)
    lengths = [float(token_lengths(splits["train"], name).mean()) for name in ("input_ids", "labels")]
    tokens = round(sum(lengths) * len(splits["train"]))
    rhythm = defaults.choose_rhythm(arguments, tokens, accelerator.num_processes)
    arguments = defaults.fill(arguments, rhythm)
    settings = arguments.training
    accelerator.print(defaults.show(chosen | rhythm, pairs))
    if accelerator.is_main_process and checkpoint is None:  # the first thing written: all data has been checked
        output_dir.mkdir(parents=True, exist_ok=True)
        empty_run(output_dir)
        write_start(output_dir, arguments, row_report.to_dict())
        tokenizer.save_pretrained(output_dir / "tokenizer")
    changes = []
    if checkpoint is not None:
        before = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["world_size"]
        changes = on_main_process(check_recipe, output_dir, arguments, before, accelerator.num_processes)
    accelerator.wait_for_everyone()

    set_seed(settings.seed)
    model = build_model(arguments, objective, tokenizer, accelerator.device)
    if accelerator.is_fsdp2:
        shard(model, accelerator)
    optimizer = build_optimizer(
        model,
        settings.learning_rate,
        (settings.adam_beta1, settings.adam_beta2),
        settings.adam_epsilon,
        settings.weight_decay,
    )
    set_seed(settings.seed, device_specific=True)  # dropout differs between processes
    model, optimizer = accelerator.prepare(model, optimizer)
    config = accelerator.unwrap_model(model).config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # The formula is that of encoder and decoder; for the others, six operations a weight (Kaplan et al. 2020).
    weights = accelerator.unwrap_model(model).num_parameters(exclude_embeddings=True)
    flops = flops_per_token(config, *lengths) if arguments.objective == "seq2seq" else 6.0 * weights
    accelerator.print(
        f"{parameters:,} parameters (d_model {config.d_model}, {config.encoder_layers} + {config.decoder_layers} "
        f"layers, vocabulary {config.vocab_size:,}), {flops / 1e6:.1f} MFLOP a token; {accelerator.device.type}, "
        f"{accelerator.num_processes} process(es), {torch.get_num_threads()} threads, "
        f"{accelerator.mixed_precision.replace('no', 'fp32')}, {config._attn_implementation} attention"
    )
    accelerator.init_trackers("tensorboard")

    loop = TrainingLoop(accelerator, model, optimizer, tokenizer, objective, splits, arguments, output_dir, flops)
    if checkpoint is not None:
        changes += loop.load(checkpoint)
        accelerator.print("\n".join([f"Going on from {checkpoint}.", *changes]))
    state = loop.run()

    best = loop.final_model()
    scores, samples = {}, []
    final = next((split for split in ("test", "validation") if split in splits), None)
    if final:
        accelerator.print(f"Scoring the {final} split ({len(splits[final]):,} rows) ...")
        scores[final], samples = evaluate_split(
            best,
            tokenizer,
            splits[final],
            accelerator,
            objective,
            arguments.generation,
            settings.batch_tokens,
            title=final,
        )
        accelerator.print(f"{final}: {show_scores(scores[final])}")
    if "test" in scores:
        loop.log({"step": state.step, "split": "test", **scores["test"]})
    if accelerator.is_main_process:
        environment = describe_environment()
        facts = {
            "data": describe_data(arguments),
            "rows for training": f"{len(splits['train']):,}",
            "parameters": f"{parameters:,}",
            "arithmetic": f"{flops / 1e6:.1f} MFLOP a token, {state.tokens:,} tokens",
            "steps": f"{state.step:,}, the best after {state.best_step or state.step:,}",
            "time": f"{state.seconds:.0f} s of training",
            "device": f"{accelerator.num_processes} x {environment['device']}, {environment['threads']} CPU threads",
            "precision": accelerator.mixed_precision.replace("no", "fp32"),
            "seed": settings.seed,
            "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        }
        write_model(output_dir, best, tokenizer, arguments, objective.pipeline, command, facts, scores, samples)
    accelerator.end_training()
    return scores


def write_model(output_dir: Path, model, tokenizer, arguments, task, command, facts, scores, samples) -> None:
    """Write `OUTPUT_DIR/model`, the generated test rows and the curve."""
    partial = output_dir / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with writing("The model", partial, output_dir):
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_card(partial, arguments, task, command, facts, scores, samples)
        publish(partial, output_dir / "model")
    rows = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    write_whole(output_dir / "predictions.jsonl", rows)
    curve = draw_curve(output_dir)
    print(f"Model: {output_dir / 'model'}")
    print(f"Curve: {curve or 'not drawn, matplotlib is not installed: pip install matplotlib'}")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command = f"accelerate launch -m training.train {shlex.join(argv)}"
    try:
        train(parse_arguments(argv), command)
    except Interrupted as interrupted:
        print(f"{interrupted}\nGo on with: {command.replace(' --overwrite', '')} --resume", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("\nStopped. Nothing was saved since the last checkpoint.", file=sys.stderr)
        return 128 + signal.SIGINT
    except ErrorOfMainProcess:
        return 2
    except ValueError as error:
        print(f"training.train: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        print(
            f"training.train: Another process has died or no longer answers ({error}). Read what it printed; then "
            "go on from the last checkpoint with --resume.",
            file=sys.stderr,
        )
        return 1
    except (CheckpointError, FloatingPointError) as error:
        print(f"training.train: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"training.train: {error}. Mend it; if there is a checkpoint, go on with --resume.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
