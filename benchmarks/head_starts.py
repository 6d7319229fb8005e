"""Head starts: word vectors, and pretraining like BERT's, GPT's and BART's, where text is plenty and examples are few.

    python -m benchmarks.head_starts train.jsonl validation.jsonl test.jsonl --columns translation.zh translation.en \\
        --sizes 4000 25000 100000 --starts "from scratch" Word2Vec --output benchmarks/results/head-starts-vectors.json
    python -m benchmarks.head_starts train.tsv dev.tsv --columns text_a label --classes \\
        --text pairs.jsonl translation.zh --sizes 500 9000 --starts "from scratch" "masked LM" --output results.json
    python -m benchmarks.head_starts train.jsonl validation.jsonl --columns translation.zh translation.en --joint \\
        --sizes 4000 --starts "from scratch" "masked + causal LM" denoising --output results.json

The model learns from `--sizes` pairs, or labelled texts with `--classes`, of the training file; a head start knows the
text of all its rows, and of `--text`, but not what belongs together. All starts have the same model, tokenizer (of
all the text), rows, order of rows and number of steps, each in a process of its own. What is pretrained is
pretrained once, so the spread over seeds is that of fine-tuning. The results are written after every run; the
same command goes on where it stopped, and one with other sizes, starts or seeds adds to them.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# What is pretrained for a start, and on the text of which rows.
STARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "from scratch": ((), "all"),
    "Word2Vec, same rows": (("word2vec",), "same"),
    "Word2Vec": (("word2vec",), "all"),
    "GloVe": (("glove",), "all"),
    "masked LM": (("masked_lm",), "all"),
    "causal LM": (("causal_lm",), "all"),
    "masked + causal LM": (("masked_lm", "causal_lm"), "all"),
    "denoising": (("denoising",), "all"),
}
MODEL = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
MODEL |= {"d_model": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "norm_position": "pre"}
LOOKS = 8  # evaluations on the way


# ── In a process of its own ──────────────────────────────────────────────────────────────────────────────────────


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Rows of all sizes, the smaller within the larger, and a vocabulary for each side, of all the text."""
    from datasets import Dataset

    from fun_transformer import FunTransformerTokenizer
    from fun_transformer.training.data.splits import load_splits
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

    command = ["--data.bad_rows=drop"]
    for split, path in zip(("train", "validation", "test"), options.data):
        command += [f"--data.{split}.dataset={path}"]
        command += [f"--data.{split}.{side}_column={c}" for side, c in zip(("source", "target"), options.columns)]
    splits, _ = load_splits(parse_arguments(command).data, seed=1)
    train = splits["train"].shuffle(seed=1)
    parts = {str(size): train.select(range(size)) for size in options.sizes}
    if "test" not in splits:
        halves = splits["validation"].train_test_split(test_size=0.5, seed=1)
        splits |= {"validation": halves["train"], "test": halves["test"]}
    for name in ("validation", "test"):
        parts[name] = splits[name].shuffle(seed=1).select(range(min(options.rows, len(splits[name]))))
    texts = {"source": list(train["source"]), "target": [] if options.classes else list(train["target"])}
    if options.text:
        path, column = options.text
        more = [f"--data.train.dataset={path}", f"--data.train.source_column={column}", "--objective=masked_lm"]
        more += ["--data.bad_rows=drop", "--data.validation_rows=1"]
        texts["source"] += load_splits(parse_arguments(more).data, seed=1)[0]["train"]["source"]
    if options.joint:
        texts["both"] = texts["source"] + texts["target"]
    for side, lines in texts.items():
        columns = ["source", "target"] if side == "both" else [side]
        held_out = [line for column in columns for line in parts["validation"][column]]
        parts |= {f"{side}-all": Dataset.from_dict({side: lines})}
        parts |= {f"{side}-validation": Dataset.from_dict({side: held_out})}
    for name, rows in parts.items():
        rows.to_json(folder / f"{name}.jsonl", force_ascii=False)
    settings = TokenizerSettings(vocab_size=options.vocab_size, min_frequency=2)
    if options.joint:
        both = train_tokenizer(texts["both"], settings=settings)
        sides = dict.fromkeys(texts, both)
    else:
        sides = {side: train_tokenizer(lines, settings=settings) for side, lines in texts.items() if lines}
        backends = [tokenizer.backend_tokenizer for tokenizer in sides.values()]
        both = FunTransformerTokenizer.from_backend(backends[0], "bpe", "bpe", "none", *backends[1:])
    for side, tokenizer in sides.items():
        tokenizer.save_pretrained(folder / f"tokenizer-{side}")
    both.save_pretrained(folder / "tokenizer")


def pretrain(kind: str, rows: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Vectors of all sides, or a language model of one, learned from `rows`: "all", or a number of examples."""
    facts = {}
    if kind in ("masked_lm", "causal_lm", "denoising"):
        side = {"masked_lm": "source", "causal_lm": "target", "denoising": "both"}[kind]
        text = folder / (f"{side}-all.jsonl" if rows == "all" else f"{rows}.jsonl")
        command = [f"--objective={kind}", f"--tokenizer.path={folder / f'tokenizer-{side}'}"]
        command += [f"--data.train.dataset={text}", f"--data.train.source_column={side}"]
        command += [f"--data.validation.dataset={folder / f'{side}-validation.jsonl'}"]
        # Denoising takes as many batches as both language models, which train one half of the model each.
        steps = options.pretrain_steps * (2 if kind == "denoising" else 1)
        command += [f"--data.validation.source_column={side}", f"--training.max_steps={steps}"]
        command += ["--training.seed=1", f"--training.batch_tokens={2 * options.batch_tokens}"]  # its own target
        run = run_trainer(command, options, folder / f"{kind}-{rows}")
        return {"perplexity": run["scores"]["validation"]["perplexity"], "losses": run["losses"]}
    for side in ["source"] if options.classes else ["source", "target"]:
        text = folder / (f"{side}-all.jsonl" if rows == "all" else f"{rows}.jsonl")
        facts[f"{side}_tokens"] = write_vectors(kind, side, text, options, folder / f"{kind}-{rows}-{side}.bin")
    return facts


def write_vectors(kind: str, side: str, text: Path, options: argparse.Namespace, path: Path) -> int:
    """Vectors of the tokens of a text; returns how many tokens it has."""
    from transformers import AutoTokenizer

    from fun_transformer.embeddings import train_glove, train_word2vec

    tokenizer = AutoTokenizer.from_pretrained(path.parent / f"tokenizer-{side}")
    lines = [json.loads(line)[side] for line in text.read_text(encoding="utf-8").splitlines()]
    ids = tokenizer(lines, add_special_tokens=False)["input_ids"]
    sentences = [tokenizer.convert_ids_to_tokens(sentence) for sentence in ids]
    if kind == "word2vec":
        epochs = options.vector_epochs
        vectors = train_word2vec(sentences, dimension=MODEL["d_model"], min_count=2, epochs=epochs)
    else:
        vectors = train_glove(sentences, MODEL["d_model"], min_count=2, x_max=10.0)
    vectors.save_word2vec_format(path, binary=True)
    return sum(map(len, sentences))


def fine_tune(start: str, size: int, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train and score the model from a start."""
    metrics = ["accuracy"] if options.classes else ["bleu", "chrf"]
    command = ["--objective=sequence_classification" if options.classes else "--objective=seq2seq"]
    command += [f"--tokenizer.path={folder / 'tokenizer'}", f"--data.train.dataset={folder / f'{size}.jsonl'}"]
    command += [f"--data.{split}.dataset={folder / f'{split}.jsonl'}" for split in ("validation", "test")]
    command += [f"--training.max_steps={options.steps}", f"--training.seed={seed}"]
    command += [f"--training.batch_tokens={options.batch_tokens}", "--training.packing=null"]
    command += [] if options.classes else [f"--generation.metrics={','.join(metrics)}"]
    kinds, rows = STARTS[start]
    begin = [f"{kind}-{size if rows == 'same' else 'all'}" for kind in kinds]
    if start == "denoising" or "LM" in start:
        command += [f"--training.init_from={','.join(str(folder / name / 'model') for name in begin)}"]
    elif begin:
        sides = ["source"] if options.classes else ["source", "target"]
        command += [f"--training.{side}_vectors={folder / f'{begin[0]}-{side}.bin'}" for side in sides]
    run = run_trainer(command, options, folder / f"run-{os.getpid()}")
    shutil.rmtree(folder / f"run-{os.getpid()}")
    return {"losses": run["losses"]} | {metric: run["scores"]["test"][metric] for metric in metrics}


def run_trainer(command: list[str], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The scores of a run of the trainer, and its validation losses by step."""

    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.train import train

    config = Path(f"{folder}-config.json")
    config.write_text(json.dumps({"dropout": options.dropout} | MODEL), encoding="utf-8")
    steps = int(next(word for word in command if "max_steps" in word).partition("=")[2])
    command += [f"--model.config={config}", f"--output_dir={folder}", "--overwrite", "--data.bad_rows=drop"]
    command += [f"--data.max_{side}_tokens=512" for side in ("source", "target")]
    command += [f"--training.threads={options.threads}"]
    command += ["--training.schedule=linear", f"--training.warmup_steps={min(200, steps // 5)}"]
    command += [f"--training.learning_rate={options.learning_rate}"]
    command += [f"--training.eval_steps={max(1, steps // LOOKS)}", "--training.save_steps=1000000"]
    command += ["--generation.max_new_tokens=64", "--generation.eval_rows=1"]
    scores = train(parse_arguments(command)).scores
    config.unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {str(line["step"]): line["loss"] for line in lines if line["split"] == "validation"}
    return {"scores": scores, "losses": losses}


def child(task: list[Any], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do a task and say what it took."""
    start = time.monotonic()
    steps = {"prepare": prepare, "pretrain": pretrain, "fine_tune": fine_tune}
    facts = steps[task[0]](*task[1:], options, folder) or {}
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"wall_seconds": time.monotonic() - start, "cpu_seconds": used.ru_utime + used.ru_stime}
    return facts | {name: round(value, 1) for name, value in seconds.items()}


# ── The whole ────────────────────────────────────────────────────────────────────────────────────────────────────


def table(runs: list[dict[str, Any]]) -> str:
    """Scores, mean and half the spread over seeds, and the validation loss on the way."""
    metrics = [name for name in ("accuracy", "bleu", "chrf") if name in runs[0]]
    looks = [step for look, step in enumerate(runs[0]["losses"], 1) if look in (1, 2, 4, 8)]
    lines = [["rows", "start", *metrics, *(f"loss at {step}" for step in looks), "CPU seconds"]]
    for (size, start), group in groups(runs).items():
        values = [[run[metric] for run in group] for metric in metrics]
        cells = [f"{statistics.mean(v):.1f} ±{(max(v) - min(v)) / 2:.1f}" for v in values]
        cells += [f"{statistics.mean(run['losses'][step] for run in group):.2f}" for step in looks]
        lines.append([f"{size:,}", start, *cells, f"{statistics.mean(run['cpu_seconds'] for run in group):.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def groups(runs: list[dict[str, Any]]) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """The runs of a size and start, in the order of sizes and of STARTS."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: (run["size"], list(STARTS).index(run["start"]), run["seed"])):
        found.setdefault((run["size"], run["start"]), []).append(run)
    return found


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Validation loss by step, a panel for each size and a line for each start: mean and range over seeds."""
    from fun_transformer.visualization.figures import COLOURS, WIDTH, drawing, name_axes, new_figure, save_figure

    sizes = sorted({run["size"] for run in runs})
    with drawing():
        figure = new_figure(WIDTH, 3.8)
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
        for (size, start), group in groups(runs).items():
            axes = panels[0][sizes.index(size)]
            steps = [int(step) for step in group[0]["losses"]]
            values = [[run["losses"][str(step)] for run in group] for step in steps]
            number = list(STARTS).index(start)
            means = [statistics.mean(row) for row in values]
            ends = [[mean - min(row) for mean, row in zip(means, values)]]
            ends += [[max(row) - mean for mean, row in zip(means, values)]]
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "marker": "osD^v"[number % 5],
                "linestyle": ("-", "--", "-.")[number % 3],
            }
            axes.errorbar(steps, means, ends if len(group) > 1 else None, capsize=2, label=start, **style)
            name_axes(axes, "updates", "validation loss", f"{size:,} examples")
            axes.grid()
        panels[0][-1].legend()
        save_figure(figure, path)


def main() -> None:
    """Do what is not done yet, write the results after each run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="data files: train, validation, test (or half of validation)")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], help="of the data files")
    parser.add_argument("--classes", action="store_true", help="the target is a label: classify")
    parser.add_argument("--joint", action="store_true", help="one vocabulary for both sides, as denoising needs")
    parser.add_argument("--text", nargs=2, metavar=("FILE", "COLUMN"), help="more text of the source's language")
    parser.add_argument("--sizes", nargs="+", type=int, default=[4000, 25000, 100000], help="examples to learn from")
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=["from scratch", "Word2Vec"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="updates of each run")
    parser.add_argument("--pretrain_steps", type=int, default=2000, help="updates of each language model")
    parser.add_argument("--vector_epochs", type=int, default=5, help="passes of Word2Vec over the text")
    parser.add_argument("--rows", type=int, default=500, help="of validation and test, at most")
    parser.add_argument("--vocab_size", type=int, default=4000, help="of each side")
    parser.add_argument("--batch_tokens", type=int, default=2048)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", default="runs/head-starts", help="for what is prepared and pretrained")
    parser.add_argument("--output", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--picture", type=Path, help="where the picture goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a task for the child process, as JSON
    options = parser.parse_args()
    folder = Path(options.folder, options.output.stem).absolute()
    if "denoising" in options.starts and (options.classes or not options.joint):
        parser.error("denoising is for translation with one vocabulary: add --joint, without --classes.")
    if options.one:
        print("\n" + json.dumps(child(json.loads(options.one), options, folder)))
        return
    from fun_transformer.files import write_atomically
    from fun_transformer.training.run.environment import describe_environment

    fixed = {
        name: value for name, value in vars(options).items() if name not in ("one", "folder", "output", "picture")
    }
    fixed = {name: value for name, value in fixed.items() if name not in ("sizes", "starts", "seeds")}
    settings = json.loads(json.dumps(fixed | {"data": [Path(path).name for path in options.data]}))
    if options.text:
        settings["text"][0] = Path(options.text[0]).name
    words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
    results: dict[str, Any] = {"commands": [f"python -m benchmarks.head_starts {shlex.join(words)}"]}
    results |= {"environment": describe_environment(), "settings": settings, "prepared": {}, "runs": []}
    if options.output.exists() and folder.exists():
        old = json.loads(options.output.read_text(encoding="utf-8"))
        if old["settings"] != settings:
            parser.error(f"{options.output} has other settings. Remove it, or name another --output.")
        commands = dict.fromkeys([*old["commands"], *results["commands"]])
        results |= {"commands": list(commands), "prepared": old["prepared"], "runs": old["runs"]}
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def do(*task: Any) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.head_starts", *sys.argv[1:], "--one", json.dumps(task)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}

    def save() -> None:
        write_atomically(options.output, json.dumps(results, indent=1))

    if any(not (folder / f"{size}.jsonl").exists() for size in options.sizes):
        results["prepared"]["rows and tokenizer"] = do("prepare")
        save()
    for seed in options.seeds:  # A B A B: what else the machine does strikes all alike
        for size in options.sizes:
            for start in options.starts:
                kinds, of = STARTS[start]
                for kind in kinds:
                    rows = str(size) if of == "same" else "all"
                    if f"{kind}, {rows}" not in results["prepared"]:
                        results["prepared"][f"{kind}, {rows}"] = do("pretrain", kind, rows)
                        save()
                about = {"start": start, "size": size, "seed": seed}
                if any(run | about == run for run in results["runs"]):
                    continue
                results["runs"].append(about | do("fine_tune", start, size, seed))
                save()
                print(json.dumps(results["runs"][-1]), flush=True)
    print(table(results["runs"]))
    if options.picture:
        draw(results["runs"], options.picture)


if __name__ == "__main__":
    main()
