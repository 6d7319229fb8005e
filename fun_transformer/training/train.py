"""Train a model from a recipe: `accelerate launch -m training.train hub_configs/NAME/recipe.yaml`.

From sentence pairs to a model folder that `from_pretrained` and `pipeline()` take: read and check the data, train a
tokenizer unless the recipe names one, build the model, train it, score it on the test split, write it with its card.
"""

import json
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend, set_seed
from datasets import DatasetDict
from transformers import AutoTokenizer
from transformers.utils import logging

from .. import FunTransformerConfig, FunTransformerTokenizer
from ..analysis import flops_per_token
from .data.splits import load_splits
from .data.tokenizing import token_lengths, tokenize_splits
from .dry_run import rehearse
from .engine import ErrorOfMainProcess, build_accelerator, main_process_first, on_main_process, start_trackers
from .loop import Interrupted, TrainingLoop, show_scores
from .model.building import build_model, build_tokenizer
from .model.initialization import initialise
from .model.wrapping import compile_in_place, shard
from .objectives import Objective
from .optimization import build_optimizer
from .recipe.arguments import RunArguments
from .recipe.checks import check
from .recipe.defaults import describe_choices, resolve, resolve_rhythm
from .recipe.model_config import check_packing
from .recipe.reading import parse_arguments
from .run.card import describe_data, draw_curve, write_card
from .run.checkpoints import CheckpointError, is_lost_process, publish, write_whole, writing
from .run.folder import describe_environment, empty_run, prepare_output_dir, write_start
from .run.resuming import check_recipe
from .scoring import evaluate_split
from .tables import OBJECTIVES


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
    before, arguments = arguments, resolve(arguments, pairs, accelerator.device)
    if checkpoint is not None:
        tokenizer = AutoTokenizer.from_pretrained(output_dir / "tokenizer")
    else:
        tokenizer = on_main_process(build_tokenizer, arguments, objective, splits)
    splits, token_report = main_process_first(tokenize_splits, splits, tokenizer, arguments.data, objective.encode)
    rows = rows.followed_by(token_report)
    tokens = round(sum(mean_lengths(splits)) * len(splits["train"]))
    arguments = resolve_rhythm(arguments, tokens, accelerator.num_processes)
    text = f"{rows}\n{describe_choices(before, arguments, pairs)}"
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
    arguments = check(arguments)
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
