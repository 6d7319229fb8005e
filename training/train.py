"""Train a model from a recipe: `accelerate launch -m training.train hub_configs/NAME/recipe.yaml`.

From sentence pairs to a model folder that `from_pretrained` and `pipeline()` take: read and check the data, train a
tokenizer unless the recipe names one, build the model, train it, score it on the test split, write it with its card.
"""

import ctypes
import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DynamoBackend, ProjectConfiguration, parse_flag_from_env, set_seed
from datasets import DatasetDict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging

from fun_transformer import FunTransformerConfig, FunTransformerTokenizer, Seq2SeqRNNConfig
from fun_transformer.analysis import flops_per_token
from fun_transformer.masks import PACKED_KERNELS, PACKED_TYPES
from training import defaults
from training.args import GenerationArguments, RunArguments, parse_arguments
from training.caching import cores
from training.checkpoints import CheckpointError, find_checkpoint, is_lost_process, publish, write_whole, writing
from training.data import draw_rows, languages_of, load_splits, token_lengths, tokenize_splits
from training.evaluate import evaluate_split
from training.initialization import initialise
from training.loop import Interrupted, TrainingLoop, show_scores
from training.objectives import OBJECTIVES, Objective
from training.optimization import build_optimizer
from training.rehearsal import rehearse
from training.report import describe_data, describe_environment, draw_curve, write_card, write_start
from training.resuming import (
    ErrorOfMainProcess,
    check_recipe,
    empty_run,
    flat_values,
    is_run,
    main_process_first,
    on_main_process,
)
from training.sharding import compile_in_place, shard
from training.train_tokenizer import train_tokenizer

PACKING = {"cpu": 64, "cuda": 128}  # length of packed rows that trains fastest in bf16
CONFIGS = {config.model_type: config for config in (FunTransformerConfig, Seq2SeqRNNConfig)}


def use_all_cores(processes_here: int) -> None:
    """Share this machine's cores among its processes: `accelerate launch` leaves one to each."""
    torch.set_num_threads(max(1, cores() // processes_here))


def keep_freed_memory() -> None:
    """Keep what a step has freed for the next one: what goes back to the system costs a page fault every 4 KiB.

    This is the C library's to do, where it is glibc. Tensors over 32 MiB go back all the same.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**31 - 1)


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
        keep_freed_memory()
    precision = arguments.training.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(state.device) else "fp32"
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if precision == "bf16" else "no",
        log_with=usable_trackers(arguments),
        project_config=ProjectConfiguration(arguments.output_dir, logging_dir=f"{arguments.output_dir}/tensorboard"),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        engine = accelerator.state.deepspeed_plugin.deepspeed_config
        engine["gradient_clipping"] = arguments.training.max_grad_norm or 0.0  # it clips by itself
        engine["train_micro_batch_size_per_gpu"] = 1  # it insists on a number; ours differ in size
    return accelerator


def usable_trackers(arguments: RunArguments) -> list[str]:
    """The trackers of the recipe; TensorBoard only where it is installed.

    Raises:
        ValueError: When one that somebody asked for is not installed.
    """
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in arguments.training.trackers:
        if name not in available and name != "tensorboard":
            raise ValueError(f"training.trackers names {name}, which is not installed: pip install {name}.")
    return [name for name in arguments.training.trackers if name in available]


def start_trackers(accelerator: Accelerator, arguments: RunArguments) -> None:
    """Tell the trackers of the run and of its arguments."""
    flat = flat_values(yaml.safe_load(arguments.to_yaml()))
    config = {name: value if isinstance(value, int | float | str) else str(value) for name, value in flat.items()}
    accelerator.init_trackers("fun_transformer", config)


def prepare_output_dir(arguments: RunArguments, rehearsal: bool = False) -> tuple[Path, Path | None]:
    """Make sure that nothing is overwritten by mistake; a rehearsal overwrites nothing.

    Returns:
        The run's folder, and the checkpoint to go on from.

    Raises:
        ValueError: When the folder is missing from the recipe, or has something in it and nobody said what to do.
    """
    if not arguments.output_dir:
        raise ValueError("output_dir is missing: say where the run writes, as in --output_dir runs/NAME.")
    output_dir = Path(arguments.output_dir)
    if rehearsal:
        return output_dir, None
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
            **objective.texts(draw_rows(splits["train"], settings.max_rows, arguments.training.seed)),
            type=settings.type,
            vocab_size=settings.vocab_size,
            target_type=settings.target_type,
            target_vocab_size=settings.target_vocab_size,
            lowercase=settings.lowercase,
            min_frequency=settings.min_frequency,
        )
    objective.prepare_tokenizer(tokenizer)
    if languages := set(languages_of(arguments.data, "train")):
        if not hasattr(tokenizer, "add_languages"):
            raise ValueError(
                f"tokenizer.path={settings.path}: only a FunTransformerTokenizer can tell languages apart."
            )
        tokenizer.add_languages(languages)
    return tokenizer


def choose_config(model_type: str, fields: Iterable[str]) -> type[FunTransformerConfig | Seq2SeqRNNConfig]:
    """The config class of a kind of model.

    Args:
        model_type: The recipe's `model.model_type`, or that of its `model.config`.
        fields: What the recipe says of the model.

    Raises:
        ValueError: There is no such kind of model, or it has no such field.
    """
    if model_type not in CONFIGS:
        raise ValueError(f"model.model_type={model_type} is not known. Choose one of {', '.join(CONFIGS)}.")
    config_class = CONFIGS[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | {"config", "model_type"}
    if foreign := sorted(set(fields) - known):
        raise ValueError(
            f"model.{foreign[0]} is no field of a {model_type}. Leave it out, or choose another model.model_type: "
            f"{', '.join(set(CONFIGS) - {model_type})}."
        )
    return config_class


def recipe_fields(arguments: RunArguments) -> dict[str, Any]:
    """What the recipe says of the model, that of its `model.config` included."""
    fields = dict(arguments.model)
    path = fields.pop("config", None)
    return json.loads(Path(path).read_text(encoding="utf-8")) | fields if path else fields


def choose_kernel(arguments: RunArguments, device: torch.device) -> str:
    """The attention kernel that the recipe names, or the fastest for its batches on a device."""
    if arguments.training.attn_implementation:
        return arguments.training.attn_implementation
    # Measured at sentence lengths on CPUs: step-by-step attention trains faster than the fused kernel in bf16, and as
    # fast in float32.
    return "eager" if device.type == "cpu" else "sdpa"


def packing_problem(arguments: RunArguments, device: torch.device) -> str | None:
    """Why the model or the kernel of a recipe does not go with packed rows; None where they do."""
    fields, kernel = recipe_fields(arguments), choose_kernel(arguments, device)
    advice = "or make training.packing null"
    if (model_type := fields.get("model_type", "fun_transformer")) != "fun_transformer":
        return f"training.packing is for model.model_type: fun_transformer, got {model_type}. Make it null."
    for stack in ("encoder", "decoder"):
        if mixing := set(fields.get(f"{stack}_layer_types") or ()) - {*PACKED_TYPES}:
            return (
                f"Layers of type {min(mixing)} mix the sentences of a packed row. Choose model.{stack}_layer_types "
                f"from {', '.join(PACKED_TYPES)}, {advice}."
            )
    if kernel not in PACKED_KERNELS:
        return (
            f"training.attn_implementation={kernel} does not keep packed sentences apart. Choose one of "
            f"{', '.join(PACKED_KERNELS)}, {advice}."
        )
    return None


def check_packing(arguments: RunArguments, device: torch.device) -> None:
    """Refuse what packed rows do not go with, before anything is read or written.

    Raises:
        ValueError: Naming what does not fit.
    """
    if arguments.training.packing and (problem := packing_problem(arguments, device)):
        raise ValueError(problem)


def choose_packing(arguments: RunArguments, accelerator: Accelerator) -> dict[str, int | None]:
    """Packed rows where they are faster and nobody has said otherwise: where bf16 is.

    There every new size of a batch costs a CPU and a GPU milliseconds, for the kernels that are made or chosen for it,
    and packed batches have but one size. In float32 CPUs have no such cost, and are faster without filler.

    Returns:
        `training.packing` and its value; nothing where it is named or not to be chosen.
    """
    training, device = arguments.training, accelerator.device
    plain = arguments.objective == "seq2seq" and training.r_drop is None and training.scheduled_sampling is None
    if not plain or "training.packing" in arguments.given or accelerator.mixed_precision != "bf16":
        return {}
    if device.type not in PACKING or packing_problem(arguments, device):
        return {}
    return {"training.packing": PACKING[device.type]}


def build_model(arguments: RunArguments, objective: Objective, tokenizer, device: torch.device) -> PreTrainedModel:
    """A model with fresh weights, as large as the recipe says and with a vocabulary as large as the tokenizer's.

    Args:
        arguments: The recipe.
        objective: Decides the head.
        tokenizer: Gives the vocabulary and the special tokens.
        device: Where it will be trained.

    Raises:
        ValueError: When the recipe's vocabulary is smaller than the tokenizer's, or its fields do not fit together.
    """
    fields = recipe_fields(arguments)
    config_class = choose_config(fields.pop("model_type", "fun_transformer"), arguments.model)
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
    if target_size := getattr(tokenizer, "target_vocab_size", None):
        fields |= {"decoder_vocab_size": target_size, "share_encoder_decoder_embeddings": False}
    try:
        config = config_class(**fields, **objective.config_fields())
    except StrictDataclassError as error:
        raise ValueError(f"model: {error.__cause__ or error}") from error
    kernel = choose_kernel(arguments, device)
    if device.type == "cuda":  # cuDNN's attention takes milliseconds to plan for each new size of a batch
        torch.backends.cuda.enable_cudnn_sdp(arguments.training.packing is not None)
    if config_class is Seq2SeqRNNConfig:
        kernel = arguments.training.attn_implementation or "eager"  # it has no other
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


def prepare_data(
    arguments: RunArguments, output_dir: Path, checkpoint: Path | None, accelerator: Accelerator
) -> tuple[RunArguments, Objective, FunTransformerTokenizer, DatasetDict, str, dict[str, Any]]:
    """From the recipe to token ids, with what the recipe leaves open filled in.

    Returns:
        The arguments, the objective, the tokenizer, the tokenised splits, what to print, and the report on rows.
    """
    splits, rows = main_process_first(load_splits, arguments.data, arguments.training.seed)
    objective = OBJECTIVES[arguments.objective](splits)
    pairs = len(splits["train"])
    chosen = defaults.choose(arguments, pairs) | choose_packing(arguments, accelerator)
    arguments = defaults.fill(arguments, chosen)
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(output_dir / "tokenizer")
    else:
        tokenizer = on_main_process(build_tokenizer, arguments, objective, splits)
    splits, token_report = main_process_first(tokenize_splits, splits, tokenizer, arguments.data, objective.encode)
    rows = rows.followed_by(token_report)
    rhythm = defaults.choose_rhythm(
        arguments, round(sum(mean_lengths(splits)) * len(splits["train"])), accelerator.num_processes
    )
    arguments = defaults.fill(arguments, rhythm)
    text = f"{rows}\n{defaults.show(chosen | rhythm, pairs)}"
    return arguments, objective, tokenizer, splits, text, rows.to_dict()


def mean_lengths(splits: DatasetDict) -> list[float]:
    """Mean number of tokens of the sources and of the targets of the training rows."""
    return [float(token_lengths(splits["train"], name).mean()) for name in ("input_ids", "labels")]


def prepare_loop(
    accelerator: Accelerator,
    arguments: RunArguments,
    objective: Objective,
    tokenizer,
    splits: DatasetDict,
    resumed: bool = False,
) -> TrainingLoop:
    """Model and optimizer, on all processes, and the loop that trains them; prints what they are."""
    settings = arguments.training
    set_seed(settings.seed)
    model = build_model(arguments, objective, tokenizer, accelerator.device)
    if not resumed:
        for report in initialise(model, tokenizer, settings):
            accelerator.print(report)
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
    dynamo = accelerator.state.dynamo_plugin
    if dynamo.backend != DynamoBackend.NO and not dynamo.dynamic and not settings.packing:
        accelerator.print(
            "Every size of a batch will be compiled anew. Give all one, --training.packing 128, or compile once "
            "for all sizes, --dynamo_mode default --dynamo_use_dynamic."
        )
    compile_in_place(model, accelerator)
    model, optimizer = accelerator.prepare(model, optimizer)
    module = accelerator.unwrap_model(model)
    config = module.config
    # The formula is that of encoder and decoder; for the others, six operations a weight (Kaplan et al. 2020).
    flops = 6.0 * module.num_parameters(exclude_embeddings=True)
    if isinstance(config, FunTransformerConfig) and arguments.objective == "seq2seq":
        flops = flops_per_token(config, *mean_lengths(splits))
    accelerator.print(
        f"{module.num_parameters():,} parameters (d_model {config.d_model}, {config.encoder_layers} + "
        f"{config.decoder_layers} layers, vocabulary {config.vocab_size:,}), {flops / 1e6:.1f} MFLOP a token; "
        f"{accelerator.device.type}, {accelerator.num_processes} process(es), {torch.get_num_threads()} threads, "
        f"{accelerator.mixed_precision.replace('no', 'fp32')}, {config._attn_implementation} attention"
    )
    output_dir = Path(arguments.output_dir)
    return TrainingLoop(accelerator, model, optimizer, tokenizer, objective, splits, arguments, output_dir, flops)


def train(arguments: RunArguments, command: str) -> dict[str, dict[str, Any]]:
    """Run a recipe.

    Args:
        arguments: The checked recipe.
        command: What to write into the model card as the command of this run.

    Returns:
        The scores by split; nothing for `dry_run` and `profile`.

    Raises:
        ValueError: When arguments or data are not usable; nothing has been trained then.
        Interrupted: After Ctrl-C or SIGTERM.
    """
    accelerator = build_accelerator(arguments)
    logging.disable_progress_bar()  # of saving and loading: there is one bar, that of the training
    rehearsal = arguments.dry_run or arguments.profile is not None
    output_dir, checkpoint = on_main_process(prepare_output_dir, arguments, rehearsal)
    on_main_process(check_packing, arguments, accelerator.device)
    set_seed(arguments.training.seed)
    arguments, objective, tokenizer, splits, text, rows = prepare_data(arguments, output_dir, checkpoint, accelerator)
    accelerator.print(text)
    if rehearsal:
        loop = prepare_loop(accelerator, arguments, objective, tokenizer, splits)
        accelerator.print(rehearse(loop, arguments.profile))
        return {}
    changes = []
    if checkpoint is not None:
        before = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["world_size"]
        changes = on_main_process(check_recipe, output_dir, arguments, before, accelerator.num_processes)
    elif accelerator.is_main_process:  # the first thing written: all data has been checked
        output_dir.mkdir(parents=True, exist_ok=True)
        empty_run(output_dir)
        write_start(output_dir, arguments, rows)
        tokenizer.save_pretrained(output_dir / "tokenizer")
    accelerator.wait_for_everyone()

    loop = prepare_loop(accelerator, arguments, objective, tokenizer, splits, resumed=checkpoint is not None)
    if checkpoint is not None:
        changes += loop.load(checkpoint)
        accelerator.print("\n".join([f"Going on from {checkpoint}.", *changes]))
    start_trackers(accelerator, arguments)
    loop.run()
    scores = finish(loop, command)
    accelerator.end_training()
    return scores


def finish(loop: TrainingLoop, command: str) -> dict[str, dict[str, Any]]:
    """Score the final model on the test split (without one, on validation), and write it with its card.

    Returns:
        The scores by split.
    """
    accelerator, arguments, splits, state = loop.accelerator, loop.arguments, loop.splits, loop.state
    model = loop.final_model()
    scores, samples = {}, []
    final = next((split for split in ("test", "validation") if split in splits), None)
    if final:
        accelerator.print(f"Scoring the {final} split ({len(splits[final]):,} rows) ...")
        scores[final], samples = evaluate_split(
            model,
            loop.tokenizer,
            splits[final],
            accelerator,
            loop.objective,
            arguments.generation,
            arguments.training.batch_tokens,
            title=final,
        )
        accelerator.print(f"{final}: {show_scores(scores[final])}")
    if "test" in scores:
        loop.log({"step": state.step, "split": "test", **scores["test"]})
    if accelerator.is_main_process:
        environment = describe_environment()
        steps = ", ".join(f"{step:,}" for step, _ in sorted(state.saved))
        facts = {
            "data": describe_data(arguments),
            "rows for training": f"{len(splits['train']):,}",
            "parameters": f"{model.num_parameters():,}",
            "arithmetic": f"{loop.flops_per_token / 1e6:.1f} MFLOP a token, {state.tokens:,} tokens",
            "steps": f"{state.step:,}; the weights are {'the mean of ' * (len(state.saved) > 1)}those after {steps}",
            "time": f"{state.seconds:.0f} s of training",
            "device": f"{accelerator.num_processes} x {environment['device']}, {environment['threads']} CPU threads",
            "precision": accelerator.mixed_precision.replace("no", "fp32"),
            "seed": arguments.training.seed,
            "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        }
        pipeline = loop.objective.pipeline
        write_model(loop.output_dir, model, loop.tokenizer, arguments, pipeline, command, facts, scores, samples)
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
