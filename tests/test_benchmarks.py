"""The benchmarks run, on a corpus of a few lines; what they measure is another matter."""

import importlib.util
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from forked_runs import write_digits_recipe

from benchmarks import complexity, contenders, finetuning, head_starts, lineage, lineage_results, optimizers, peers
from benchmarks import training as training_benchmark


@pytest.mark.slow
def test_all_contenders_train_on_the_same_corpus(tmp_path, monkeypatch, capsys):
    for side, letters in (("source", "abc"), ("target", "xyz")):
        lines = [f"{letters[row % 3] * (1 + row % 5)} {letters[(row + 1) % 3]}\n" for row in range(200)]
        (tmp_path / side).write_text("".join(lines))
    output = tmp_path / "results.json"
    names = dict.fromkeys([*contenders.default_contenders(), "ours, packed"])
    names = [name for name in names if "compiled" not in name]
    argv = ["training", str(tmp_path / "source"), str(tmp_path / "target"), "--vocab_size=300", "--batch_tokens=512"]
    argv += ["--seconds=0.05", "--rounds=2", "--warm_up=2", "--neighbours=1", f"--output={output}", "--only", *names]
    monkeypatch.setattr(sys, "argv", argv)
    training_benchmark.main()
    results = json.loads(output.read_text())
    assert list(results["turns"]) == names
    assert all(turn["tokens"] > 0 for turns in results["turns"].values() for turn in turns)
    assert results["environment"]["device"] and results["flops_per_token"] > 1e6
    assert results["counted"] == "cpu" and set(results["headline"]["tried"]["Marian"]) < set(names)
    assert list(results["beside_busy_loops"]) == ["1"] and list(results["warm_up"]) == names
    printed = capsys.readouterr().out
    assert "Seq2SeqTrainer, Marian" in printed and "best turn against best turn" in printed


@pytest.mark.slow
def test_fine_tuning_takes_turns_and_adds_to_the_results(tmp_path):
    for side, letters in (("source", "abc"), ("target", "xyz")):
        lines = [f"{letters[row % 3] * (1 + row % 5)} {letters[row % 2]}{row}\n" for row in range(120)]
        (tmp_path / side).write_text("".join(lines))
    output = tmp_path / "results.json"
    output.write_text(json.dumps({"another": {}}))
    command = [sys.executable, "-m", "benchmarks.finetuning", str(tmp_path / "source"), str(tmp_path / "target")]
    command += ["--model=marian-tiny", "--seconds=0.05", "--rounds=2", f"--output={output}"]
    subprocess.run(command, check=True, timeout=500)
    results = json.loads(output.read_text())
    assert list(results) == ["another", "marian-tiny"]
    found = results["marian-tiny"]["contenders"]
    assert list(found) == list(finetuning.CONTENDERS)
    assert all(len(c["turns"]) == 2 and c["tokens_per_second"] > 0 for c in found.values())
    assert all(0 < c["loss"] < 12 for c in found.values())


def test_peers_that_are_not_installed_are_left_out_unless_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == "eole" else object())
    names = contenders.default_contenders()
    assert "JoeyNMT" in names and "eole" not in names and "eole" in contenders.CONTENDERS


@pytest.fixture
def tiny_corpus():
    """Sources of 4 tokens and targets of 3, all different, each with `</s>` (id 1)."""
    rows = [[5 + row % 7, 5 + row // 7 % 7, 2] for row in range(49)]
    dims = {"d_model": 32, "dropout": 0.1}
    dims |= {f"{side}_layers": 1 for side in ("encoder", "decoder")}
    dims |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    dims |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}

    class Tokenizer:
        bos_token_id, eos_token_id, unk_token_id, pad_token_id = range(4)

        def __len__(self):
            return 16

    train = Dataset.from_dict({"input_ids": [[*row, 1] for row in rows], "labels": [[*row[:2], 1] for row in rows]})
    arguments = SimpleNamespace(
        training=SimpleNamespace(batch_tokens=64, learning_rate=5e-4, warmup_steps=10), model={"label_smoothing": 0.1}
    )
    return SimpleNamespace(dims=dims, tokenizer=Tokenizer(), splits={"train": train}, arguments=arguments)


def test_peers_read_all_ids_as_words_of_the_same_vocabulary(tiny_corpus, tmp_path):
    peers.write_words(tiny_corpus, tmp_path, " </s>")
    assert (tmp_path / "train.src").read_text().splitlines()[8] == "6 6 <unk> </s>"
    assert (tmp_path / "train.trg").read_text().splitlines()[8] == "6 6"
    assert (tmp_path / "vocab.txt").read_text().split() == [str(token_id) for token_id in range(4, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(peers.PACKAGES))
def test_peers_count_the_tokens_of_whole_sentences_with_their_ends(name, tiny_corpus):
    pytest.importorskip(peers.PACKAGES[name])
    train = contenders.CONTENDERS[name](tiny_corpus)
    tokens = [train(0.3), train(0.3)]
    assert all(count > 0 and count % (4 + 3) == 0 for count in tokens)


def test_layers_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    output, picture = tmp_path / "results.json", tmp_path / "picture.svg"
    argv = ["complexity", "--lengths", "16", "32", "--d_model=8", "--heads=2", "--window=4", "--repeats=1"]
    monkeypatch.setattr(sys, "argv", [*argv, f"--output={output}", f"--picture={picture}"])
    complexity.main()
    results = json.loads(output.read_text())
    assert list(results["layers"]) == list(complexity.CONTENDERS)
    assert all(len(found["measured"]) == 2 for found in results["layers"].values())
    assert results["layers"]["self-attention, eager"]["exponents"]["operations"] == pytest.approx(2)
    assert "n^2.00 by formula" in capsys.readouterr().out
    assert picture.read_text().startswith("<?xml")


def test_the_crossing_lies_where_two_power_laws_meet():
    square, line = (
        [{"length": n, "seconds": value} for n in (64, 128, 256) for value in [of(n)]]
        for of in (lambda n: n**2 / 100, lambda n: float(n))
    )
    assert complexity.crossing(square, line) == 100
    assert complexity.crossing(line, square) is None


def test_systems_of_the_lineage_have_equally_many_parameters():
    wanted = 234_880  # of the Transformer
    for name in ("RNN, additive", "convolution"):
        config = lineage.of_equal_size(name, vocab_size=17, d_model=64)
        assert lineage.count_parameters(config) == pytest.approx(wanted, rel=0.05)


def test_scores_at_equal_time_lie_on_the_curve():
    lines = [
        {"split": "train", "step": 10, "tokens": 1000, "tokens_per_second": 100.0},
        {"split": "validation", "step": 10, "exact": 20.0},
        {"split": "train", "step": 20, "tokens": 3000, "tokens_per_second": 200.0},
        {"split": "validation", "step": 20, "exact": 60.0},
    ]
    points = lineage.curve(lines, "exact")
    assert [point["seconds"] for point in points] == [10.0, 20.0]
    assert [lineage_results.at_time(points, seconds) for seconds in (5.0, 10.0, 15.0, 99.0)] == [
        10.0,
        20.0,
        40.0,
        60.0,
    ]


def curve_of(*scores: float) -> list[dict[str, float]]:
    """Points 10 updates and 2 seconds apart."""
    return [{"step": 10 * n, "seconds": 2.0 * n, "score": score} for n, score in enumerate(scores, 1)]


def test_updates_and_seconds_until_a_share_of_the_best_score_lie_on_the_curve():
    points = curve_of(40.0, 80.0, 100.0, 90.0)
    assert [lineage_results.until_share(points, "step", share) for share in (0.2, 0.6, 0.9)] == [5.0, 15.0, 25.0]
    assert lineage_results.until_share(points, "seconds") == 5.0
    assert lineage_results.until_share(curve_of(0.0, 0.0), "step") == 0.0


def test_a_run_is_at_its_plateau_when_patience_ended_it():
    run = {"curve": curve_of(1.0, 3.0, 2.0, 2.5), "patience": 2}
    assert lineage_results.is_at_plateau(run)
    assert not lineage_results.is_at_plateau(run | {"patience": 3})
    assert not lineage_results.is_at_plateau(run | {"patience": None})


def test_a_run_that_ended_keeps_its_best_score_in_the_picture():
    seconds, scores = lineage_results.best_so_far([{"curve": curve_of(1.0, 3.0, 2.0)}, {"curve": curve_of(4.0)}])
    assert seconds == [2.0, 4.0, 6.0]
    assert scores == [[1.0, 4.0], [3.0, 4.0], [3.0, 4.0]]


def test_quality_is_told_apart_by_the_length_of_the_source():
    rows = [
        {"source": "abc", "prediction": "cba", "references": ["cba"]},
        {"source": "abcdefg", "prediction": "gfedcba", "references": ["gfedcba"]},
        {"source": "abcdefgh", "prediction": "hgfedcb", "references": ["hgfedcba"]},
    ]
    assert lineage.by_length(rows, "exact") == {"5": 100.0, "10": 50.0}


@pytest.fixture
def here(monkeypatch):
    """Let a benchmark do in this process what it does in processes of its own; gives the list of their tasks."""
    real_run, threads = subprocess.run, torch.get_num_threads()

    def children_of(benchmark):
        def in_this_process(command, **options):
            if "--one" not in command:
                return real_run(command, **options)
            AcceleratorState._reset_state(reset_partial_state=True)
            with monkeypatch.context() as context, redirect_stdout(io.StringIO()) as printed:
                context.setattr(sys, "argv", command[2:])
                benchmark.main()
            tasks.append(json.loads(command[-1]))
            return subprocess.CompletedProcess(command, 0, printed.getvalue())

        tasks: list = []
        monkeypatch.setattr(benchmark.subprocess, "run", in_this_process)
        return tasks

    yield children_of
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_lineage_is_trained_drawn_and_not_trained_again(here, tmp_path, monkeypatch, capsys):
    tasks = here(lineage)
    output, picture = tmp_path / "lineage.json", tmp_path / "lineage.png"
    argv = ["lineage", "reverse", "--d_model=16", "--steps=10", "--evaluations=1", "--seeds", "1"]
    argv += ["--rows", "20", "40", "--only", "RNN, dot", f"--output={output}", f"--picture={picture}"]
    argv += ["--learning_rates", "1e-3", "4e-3:2", "--trial_steps=10"]
    monkeypatch.setattr(sys, "argv", argv)
    lineage.main()
    assert picture.stat().st_size > 1000
    table = capsys.readouterr().out
    assert "| RNN, dot, 40 rows |" in table
    results = json.loads(output.read_text())
    tries = results["tries"]["RNN, dot"]  # with 20 rows alone, without the test split
    assert [(found["learning_rate"], found["warmup_steps"]) for found in tries] == [(1e-3, 200), (4e-3, 2)]
    assert {found["rows"] for found in tries} == {20} and "by_length" not in tries[0]
    best = max(tries, key=lambda found: found["score"])
    runs = [run for runs in results["systems"].values() for run in runs]
    assert {run["learning_rate"] for run in runs} == {best["learning_rate"]}
    before = output.read_text()
    lineage.main()  # all runs are there
    assert capsys.readouterr().out in table and len(tasks) == 4
    assert output.read_text() == before


def run_of(start: str, size: int, seed: int, bleu: float, losses: tuple[float, float]) -> dict:
    """What is kept of a run of benchmarks.head_starts."""
    steps = {"5": losses[0], "10": losses[1]}
    return {"start": start, "size": size, "seed": seed, "bleu": bleu, "losses": steps, "cpu_seconds": 12.0}


def test_head_starts_are_told_with_means_and_spreads():
    runs = [run_of("Word2Vec", 40, 1, 5.0, (3.0, 2.0)), run_of("from scratch", 1000, 1, 7.0, (4.0, 2.5))]
    runs += [run_of("from scratch", 40, 2, 4.0, (4.0, 3.0)), run_of("from scratch", 40, 1, 2.0, (5.0, 3.5))]
    assert head_starts.table(runs).splitlines() == [
        "| rows | start | bleu | loss at 5 | loss at 10 | CPU seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        "| 40 | from scratch | 3.0 ±1.0 | 4.50 | 3.25 | 12 |",
        "| 40 | Word2Vec | 5.0 ±0.0 | 3.00 | 2.00 | 12 |",
        "| 1,000 | from scratch | 7.0 ±0.0 | 4.00 | 2.50 | 12 |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("starts", "options"),
    [
        (["from scratch", "Word2Vec, same rows", "masked LM", "masked + causal LM"], []),
        (["from scratch", "Word2Vec, same rows", "masked LM"], ["--classes"]),
        (["from scratch", "denoising"], ["--joint"]),
    ],
    ids=["pairs", "classes", "joint"],
)
def test_head_starts_are_given_and_a_second_call_does_nothing_twice(
    starts, options, here, tmp_path, monkeypatch, capsys
):
    classes, tasks = "--classes" in options, here(head_starts)
    files = [str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")]
    for path in files:
        lines = [
            {"a": f"{'甲乙丙'[n % 3] * 3} {n}", "b": "xyz"[n % 3] if classes else f"{n} of {n % 7}"} for n in range(60)
        ]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    output = tmp_path / "results.json"
    argv = ["head_starts", *files, "--columns", "a", "b", "--sizes", "20", "--seeds", "1", "--steps=2", "--rows=5"]
    argv += ["--pretrain_steps=2", "--vocab_size=300", f"--folder={tmp_path}", f"--output={output}"]
    argv += [f"--picture={tmp_path}/picture.png"]
    argv += [*options, *(["--text", files[0], "a"] if classes else [])]
    for seeds in (["1"], ["1", "2"]):
        monkeypatch.setattr(sys, "argv", [*argv, "--starts", *starts, "--seeds", *seeds])
        head_starts.main()
    results = json.loads(output.read_text())
    assert [(run["start"], run["seed"]) for run in results["runs"]] == [(s, seed) for seed in (1, 2) for s in starts]
    pretrained = ["denoising"] if starts[-1] == "denoising" else ["word2vec", "masked_lm", "causal_lm"]
    assert [task[1] for task in tasks if task[0] == "pretrain"] == pretrained[: len(starts) - 1]
    assert len(tasks) == len({json.dumps(task) for task in tasks})
    first = {run["start"]: next(iter(run["losses"].values())) for run in results["runs"] if run["seed"] == 1}
    assert len(set(first.values())) == len(starts)  # no two begin alike
    assert f"| 20 | {starts[-1]} |" in capsys.readouterr().out
    assert (tmp_path / "picture.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerate")
def test_optimizers_are_compared_and_a_second_call_adds_to_the_first(tmp_path, monkeypatch):
    recipe, output = write_digits_recipe(tmp_path), tmp_path / "results.json"
    (tmp_path / "test.jsonl").unlink()  # it is not looked at
    words = ["optimizers", str(recipe), f"--output={output}", f"--folder={tmp_path}/runs", "--training.max_steps=2"]
    for rates in (["1e-3"], ["1e-3", "2e-3"]):
        optimizer = ["--optimizers", "adamw", *(["muon"] if len(rates) == 1 else [])]
        monkeypatch.setattr(sys, "argv", [*words, "--training.eval_steps=1", "--rates", *rates, *optimizer])
        optimizers.main()
    runs = json.loads(output.read_text())["runs"]
    assert [(run["optim"], run["learning_rate"]) for run in runs] == [("adamw", 1e-3), ("muon", 1e-3), ("adamw", 2e-3)]
    assert all(list(run["losses"]) == ["1", "2"] and run["cpu_seconds"] > 0 for run in runs)
    assert runs[0]["losses"] != runs[1]["losses"]
