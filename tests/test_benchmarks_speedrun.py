"""The speedrun: it ends at its target, looks at the test split once and only then, and its table is its logs'."""

import dataclasses
import json

import pytest

from benchmarks.speedrun.__main__ import check_arguments, check_options, read_options, run_track
from benchmarks.speedrun.__main__ import main as speedrun
from benchmarks.speedrun.records import README, read_records, table, write_record
from benchmarks.speedrun.tracks import TRACKS, Track, digest, pronunciations, tables
from fun_transformer.training import parse_arguments
from fun_transformer.training.tables import METRICS

RECIPE = {
    "model": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "encoder_ffn_dim": 64}
    | {"decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "tokenizer": {"type": "char", "min_frequency": 1},
    "training": {"max_steps": 60, "batch_tokens": 256, "learning_rate": 1e-2, "warmup_steps": 5, "eval_steps": 5}
    | {"save_steps": 60, "metric_for_best_model": "loss", "report_to": [], "packing": None},
    "generation": {"metrics": []},
}


@pytest.fixture
def small_track(tmp_path):
    """A track with a loss as its target, and the arguments of a run; the test split is not there."""
    rows = [{"source": letter * (1 + number % 6), "target": letter} for number in range(60) for letter in "abc"]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    files = ("train.jsonl", "validation.jsonl")
    track = Track("loss", 0.7, tmp_path / "recipe.yaml", files, digest([tmp_path / name for name in files]))
    words = [f"--data.{split}.dataset={tmp_path / split}.jsonl" for split in ("train", "validation", "test")]
    return track, parse_arguments([str(track.recipe), *words, f"--output_dir={tmp_path / 'run'}"])


@pytest.mark.slow
def test_a_run_ends_where_validation_reaches_the_target_and_then_is_tested(small_track, tmp_path):
    track, arguments = small_track
    (tmp_path / "test.jsonl").write_text((tmp_path / "validation.jsonl").read_text())
    found = run_track(track, arguments, track.target)
    scores = [point["loss"] for point in found["curve"]]
    assert scores[-1] <= track.target < min(scores[:-1])
    assert found["steps"] == found["curve"][-1]["step"] < 60 and found["tokens"] > 0
    assert found["test"] == pytest.approx(found["validation"], abs=1e-4)
    assert found["recipe"]["training.learning_rate"] == 1e-2 and found["seconds"] > 0


@pytest.mark.slow
def test_a_run_that_misses_the_target_does_not_look_at_the_test_split(small_track):
    track, arguments = small_track
    impossible = dataclasses.replace(track, target=-1.0)
    arguments = dataclasses.replace(arguments, training=dataclasses.replace(arguments.training, max_steps=2))
    assert run_track(impossible, arguments, impossible.target) is None  # there is no test split to be read


def test_other_data_than_the_tracks_are_refused(small_track, tmp_path):
    files = ("train.jsonl", "validation.jsonl", "recipe.yaml")
    paths = [tmp_path / name for name in files]
    track = dataclasses.replace(small_track[0], prepare=tables, files=files, digest=digest(paths))
    with pytest.raises(ValueError, match="Name the folder with the data: --data FOLDER"):
        track.options(None, tmp_path)
    assert f"--data.validation.dataset={tmp_path / 'validation.jsonl'}" in track.options(tmp_path, tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="not those of the track"):
        track.options(tmp_path, tmp_path)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"There is no .*train\.jsonl"):
        track.options(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "argv, complaint",
    [
        (["cmudict", "--no-record", "--data.train.dataset=mine.jsonl"], "the data of a track are fixed"),
        (["cmudict", "--no-record", "--stop=6.5"], "--stop 6.5 is worse than the target, 6"),
        (["multi30k", "--no-record", "--stop=37"], "--stop 37 is worse than the target, 38"),
    ],
)
def test_what_makes_no_record_is_refused_before_training(argv, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_options(*read_options(argv))
    assert speedrun(argv) == 2


@pytest.mark.parametrize("setting", ["--data.max_rows=100", "--tokenizer.path=mine", "--model.path=mine"])
def test_all_rows_and_nothing_else_are_what_a_run_begins_with(setting):
    words = ["--data.train.dataset=builtin:cmudict", "--output_dir=x"]
    check_arguments(parse_arguments(words))
    with pytest.raises(ValueError, match=rf"{setting.strip('-').partition('=')[0]} is not allowed"):
        check_arguments(parse_arguments([*words, setting]))


def test_pronunciations_are_written_as_rows(tmp_path):
    for name, text in (("train", "A  AH\nA  EY\nBE  B IY\n"), ("dev", "A  AH\nDO  D UW\n"), ("test", "GO  G OW\n")):
        (tmp_path / name).write_text(text)
    data = pronunciations([tmp_path / name for name in ("train", "dev", "test")], tmp_path)
    rows = {split: [json.loads(line) for line in values["dataset"].open()] for split, values in data.items()}
    assert [row["target"] for row in rows["train"]] == ["AH", "EY", "B IY"]
    assert rows["validation"] == [{"source": "do", "target": "D UW", "references": ["D UW"]}]


@pytest.mark.parametrize("name", TRACKS)
def test_the_recipe_of_a_track_measures_what_it_has_to_reach(name, tmp_path):
    track = TRACKS[name]
    fixed = [f"--{setting}" for setting in track.fixed]
    words = [f"--data.{split}.dataset=x.jsonl" for split in ("train", "validation", "test")]
    arguments = parse_arguments(
        [str(track.recipe), *words, *fixed, f"--training.metric_for_best_model={track.metric}", "--output_dir=x"]
    )
    assert track.metric in arguments.generation.metrics and track.metric in METRICS


def test_the_table_of_records_is_that_of_the_logs(tmp_path):
    assert f"<!-- records -->\n{table(read_records())}<!-- end -->" in README.read_text(encoding="utf-8")
    record = {"track": "cmudict", "test": 5.9, "seconds": 61.2, "steps": 900, "tokens": 1000, "seed": 3}
    record |= {"commit": "0123456789", "hardware": "a GPU"}
    slower = record | {"seconds": 70.0}
    paths = [write_record(found, tmp_path) for found in (slower, record)]
    assert [path.name for path in paths] == ["cmudict-001.json", "cmudict-002.json"]
    rows = [line for line in table(read_records(tmp_path)).splitlines() if "| cmudict |" in line]
    assert [row.split(" | ")[3] for row in rows] == ["61", "70"] and "0123456 |" in rows[0]


def test_every_record_reached_its_target_on_both_splits():
    for record in read_records().values():
        track = TRACKS[record["track"]]
        assert len(record["commit"]) == 40  # of a checkout without changes
        for score in (record["validation"], record["test"]):
            assert score <= track.target if METRICS[track.metric].lower_is_better else score >= track.target
