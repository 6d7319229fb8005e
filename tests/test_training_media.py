"""Recordings and pictures as training sources: how they are read, refused and kept, and that models learn of them."""

import io
import json
import re
import tarfile
import wave
from itertools import combinations, islice, pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from forked_runs import read_metrics
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, Speech2TextFeatureExtractor, pipeline
from transformers.image_utils import load_image

from benchmarks import equal_time
from benchmarks.spoken_digits_data import read_recordings, write_strings
from examples import demo
from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.training import TokenBudgetSampler
from fun_transformer.training.data.built_in_files import (
    DIGIT_IMAGES,
    VOICES,
    formulas,
    handwritten_digits,
    spoken_digits,
)
from fun_transformer.training.data.formulas import draw_formula
from fun_transformer.training.data.media import SpeechReader
from fun_transformer.training.data.pictures import read_picture
from fun_transformer.training.data.rows import TokenRows
from fun_transformer.training.data.sounds import BadSource, read_sound, resample
from fun_transformer.training.data.spec_augment import HiddenPartsRows
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.evaluate import main as evaluate
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import prepare, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

RATE = 16_000
PITCHES = {"do": 300, "re": 500, "mi": 800, "fa": 1_300}


def tone(*words, rate=RATE, seconds=0.12, seed=0):
    """A recording of words, each of which is a pitch, in a little noise: (samples,)."""
    times = np.arange(int(seconds * rate)) / rate
    parts = [0.3 * np.sin(2 * np.pi * PITCHES[word] * times) for word in words]
    samples = np.concatenate(parts)
    return (samples + np.random.default_rng(seed).normal(0, 0.01, len(samples))).astype(np.float32)


def wav(samples, rate=RATE, width=2):
    """A WAV file of samples (samples,) or (samples, channels) in [-1, 1]."""
    whole = np.round(np.asarray(samples, np.float64) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1 if whole.ndim == 1 else whole.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            whole += 128
        file.writeframes(b"".join(int(number).to_bytes(width, "little", signed=width > 1) for number in whole.ravel()))
    return content.getvalue()


def picture(text, height=20):
    """A PNG file of a text whose letters are bars: a is short, b is long; taller than the model reads."""
    columns = []
    for letter in text:
        bar = np.full((height, 8), 255, np.uint8)
        bar[2 : 8 if letter == "a" else 18, 2:5] = 0
        columns.append(bar)
    content = io.BytesIO()
    Image.fromarray(np.concatenate([*columns, np.full((height, 20), 255, np.uint8)], axis=1)).save(content, "png")
    return content.getvalue()


MODEL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "frontend_channels": 4,
    "num_mel_bins": 16,
    "image_height": 16,
    "dropout": 0.0,
}
TEXTS = ["do", "re", "mi", "fa", "do re", "re mi", "mi fa", "fa do re"]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_recipe(folder, objective="speech_to_text", **training):
    """A recipe for a tiny model, and eight recordings or pictures beside it."""
    (folder / "files").mkdir(parents=True)
    rows = []
    for number, text in enumerate(TEXTS):
        name = f"files/{number}.{'wav' if objective == 'speech_to_text' else 'png'}"
        text = text if objective == "speech_to_text" else format(number, "03b").replace("0", "a").replace("1", "b")
        content = wav(tone(*text.split(), seed=number)) if objective == "speech_to_text" else picture(text)
        (folder / name).write_bytes(content)
        rows.append({"file": name, "text": text})
    write_rows(folder / "rows.jsonl", rows)
    part = {"dataset": str(folder / "rows.jsonl"), "source_column": "file", "target_column": "text"}
    recipe = {
        "objective": objective,
        "model": dict(MODEL),
        "data": {name: dict(part) for name in ("train", "validation", "test")},
        "training": {"max_steps": 6, "batch_tokens": 60, "precision": "fp32", "threads": 1, "save_steps": 3}
        | {"eval_steps": 3, "report_to": [], "learning_rate": 1e-3, "warmup_steps": 2, **training},
        "generation": {"max_new_tokens": 12},
        "output_dir": str(folder / "run"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return str(folder / "recipe.yaml")


def prepared(recipe, *words):
    """The run of a recipe and the report on its rows."""
    arguments = parse_arguments([recipe, *words])
    return prepare(arguments, build_accelerator(arguments))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_of_another_rate_is_the_same_tone(rate):
    def sample(at, pitch):
        return np.sin(2 * np.pi * pitch * np.arange(at) / at).astype(np.float32)

    again = resample(sample(rate, 1_000), rate, RATE)
    assert len(again) == RATE
    assert abs(again - sample(RATE, 1_000))[100:-100].max() < 1e-3
    if rate > 2 * 10_000:  # what the lower rate cannot hold is not folded into it
        assert abs(resample(sample(rate, 10_000), rate, RATE))[100:-100].max() < 1e-3


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_all_widths_are_read(width):
    samples = tone("do")
    read, changed = read_sound(wav(samples, width=width))
    assert read.dtype == np.float32 and abs(read - samples).max() < 2 / 2 ** (8 * width - 1) + 1e-4
    assert not changed


def test_two_channels_become_their_mean_and_other_rates_are_resampled():
    left, right = tone("do", rate=8_000), tone("fa", rate=8_000)
    read, changed = read_sound(wav(np.stack([left, right], axis=1), rate=8_000))
    assert_near = abs(read - resample((left + right) / 2, 8_000, RATE)).max()
    assert assert_near < 1e-3 and len(changed) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (wav(tone("do"))[:30], "damaged"),
        (wav(tone("do"))[:-2_000], "cut off"),
        (b"no sound at all", "no WAV file|not readable as sound"),
        (b"RIFF" + bytes(100), "damaged"),
        (wav(np.zeros(8_000)), "silent"),
        (wav(tone("do", seconds=0.02)), "shorter than 35 ms"),
    ],
)
def test_recordings_that_cannot_be_used_say_why(content, message):
    with pytest.raises(BadSource, match=message):
        read_sound(content)


@pytest.mark.parametrize("form", ["flac", "ogg", "mp3"])
def test_other_forms_of_sound_are_read_by_soundfile(tmp_path, form):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / f"a.{form}", tone("do"), RATE)
    read, _ = read_sound((tmp_path / f"a.{form}").read_bytes())
    if form == "flac":  # loses nothing
        assert abs(read - tone("do")).max() < 1e-3
    else:
        strongest = abs(np.fft.rfft(read)).argmax() / len(read)
        assert strongest == pytest.approx(abs(np.fft.rfft(tone("do"))).argmax() / len(tone("do")), rel=0.02)


def test_bad_files_are_refused_by_name_or_dropped_and_counted(tmp_path):
    recipe = write_recipe(tmp_path)
    bad = {"silent.wav": wav(np.zeros(8_000)), "short.wav": wav(tone("do", seconds=0.02)), "broken.wav": b"RIFFx"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "eight.wav").write_bytes(wav(np.stack([tone("do", rate=8_000)] * 2, axis=1), rate=8_000))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    names = [*bad, "nowhere.wav", "eight.wav"]
    write_rows(tmp_path / "rows.jsonl", rows + [{"file": name, "text": "do"} for name in names])
    with pytest.raises(ValueError, match="4 of 13 rows cannot be used") as refused:
        prepared(recipe)
    for words in ("silent from beginning to end: 1 (line 9)", "shorter than 35 ms: 1 (line 10)", "(line 11)"):
        assert words in str(refused.value)
    assert "no such file: 1 (line 12)" in str(refused.value)
    run, report = prepared(recipe, "--data.bad_rows=drop")
    assert len(run.splits["train"]) == 9 and report.splits["train"]["kept"] == 9
    assert sum(report.splits["train"]["dropped"].values()) == 4
    assert "1 of 13 train recordings are not of 16,000 samples a second" in str(report)
    assert "1 of 13 train recordings are with several channels" in str(report)


def test_training_features_are_those_of_the_extractor_that_is_saved(tmp_path):
    arguments = parse_arguments([write_recipe(tmp_path)])
    train(arguments)
    saved = AutoFeatureExtractor.from_pretrained(tmp_path / "run" / "model")
    assert isinstance(saved, Speech2TextFeatureExtractor) and saved.num_mel_bins == 16
    run, _ = prepared(str(tmp_path / "recipe.yaml"), "--overwrite")
    rows = TokenRows(run.splits["train"])
    for number in range(8):
        samples, _ = read_sound((tmp_path / "files" / f"{number}.wav").read_bytes())
        expected = saved(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
        assert np.array_equal(rows[number]["features"], expected.astype(np.float16))
        assert rows.source_lengths[number] == -(-len(expected) // 4)
    model = FunTransformerForConditionalGeneration.from_pretrained(tmp_path / "run" / "model")
    assert model.config.source_modality == "speech" and model.config.norm_position == "pre"
    scores = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss", "wer", "cer"} <= scores.keys()
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert str(tmp_path) not in card and 'pipe("4.wav")' in card and "automatic-speech-recognition" in card
    assert evaluate([str(tmp_path / "run"), "--output", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["loss"] == pytest.approx(scores["loss"], abs=1e-6) and again["wer"] == scores["wer"]


def test_pixels_are_those_of_the_processor_that_is_saved(tmp_path):
    arguments = parse_arguments([write_recipe(tmp_path, "image_to_text", max_steps=1)])
    train(arguments)
    saved = AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    run, _ = prepared(str(tmp_path / "recipe.yaml"), "--overwrite")
    rows = TokenRows(run.splits["train"])
    batch = run.objective.collate([rows[0], rows[7]], run.tokenizer)
    for place, number in enumerate((0, 7)):
        pixels = saved(load_image(str(tmp_path / "files" / f"{number}.png")), return_tensors="pt")["pixel_values"][0]
        width = int(batch["attention_mask"][place].sum())
        assert pixels.shape == (3, 16, width) and width > 16  # the height is fixed, the width follows
        torch.testing.assert_close(batch["pixel_values"][place, :, :, :width], pixels.half().float(), atol=0, rtol=0)


def test_sources_are_bytes_paths_and_columns_of_sound(tmp_path):
    recipe = write_recipe(tmp_path)
    run, _ = prepared(recipe)
    expected = TokenRows(run.splits["train"]).checksum()
    contents = [(tmp_path / "files" / f"{number}.wav").read_bytes() for number in range(8)]
    as_dicts = [{"bytes": content, "path": f"{n}.wav"} for n, content in enumerate(contents)]
    as_sound = datasets.Dataset.from_dict({"file": as_dicts, "text": TEXTS}).cast_column("file", datasets.Audio())
    as_sound.save_to_disk(tmp_path / "saved")
    as_sound.to_parquet(tmp_path / "sound.parquet")
    datasets.Dataset.from_dict({"file": contents, "text": TEXTS}).to_parquet(tmp_path / "bytes.parquet")
    folder = tmp_path / "folder" / "train"
    folder.mkdir(parents=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.wav").write_bytes(content)
    lines = [{"file_name": f"{number}.wav", "text": text} for number, text in enumerate(TEXTS)]
    write_rows(folder / "metadata.jsonl", lines)
    for name in ("saved", "sound.parquet", "bytes.parquet", "folder"):
        column = ["--data.train.source_column=audio"] if name == "folder" else []
        run, _ = prepared(recipe, f"--data.train.dataset={tmp_path / name}", *column)
        assert TokenRows(run.splits["train"]).checksum() == expected, name


def test_a_folder_of_pictures_is_read(tmp_path):
    recipe = write_recipe(tmp_path, "image_to_text")
    run, _ = prepared(recipe)
    expected = TokenRows(run.splits["train"]).checksum()
    folder = tmp_path / "folder" / "train"
    folder.mkdir(parents=True)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes((tmp_path / row["file"]).read_bytes())
    write_rows(folder / "metadata.jsonl", [{"file_name": f"{n}.png", "text": r["text"]} for n, r in enumerate(rows)])
    column = "--data.train.source_column=image"
    run, _ = prepared(recipe, f"--data.train.dataset={tmp_path / 'folder'}", column)
    assert TokenRows(run.splits["train"]).checksum() == expected


def test_features_are_found_again_by_the_content_of_the_files(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path)
    run, _ = prepared(recipe)
    before = TokenRows(run.splits["train"])
    (tmp_path / "files").rename(tmp_path / "elsewhere")
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text().replace("files", "elsewhere"))
    monkeypatch.setattr(SpeechReader, "read", None)  # would fail if anything were read again
    run, _ = prepared(recipe)
    assert TokenRows(run.splits["train"]).checksum() == before.checksum()
    monkeypatch.undo()
    (tmp_path / "elsewhere" / "0.wav").write_bytes(wav(tone("fa")))
    run, _ = prepared(recipe)
    assert TokenRows(run.splits["train"]).checksum() != before.checksum()


def test_spec_augment_hides_other_parts_each_epoch_and_only_in_training(tmp_path):
    run, _ = prepared(write_recipe(tmp_path), "--data.spec_augment=true")
    rows, plain = HiddenPartsRows(run.splits["train"], seed=1), TokenRows(run.splits["train"])
    chosen = np.arange(8)
    first, again, other = (rows.read(chosen, epoch) for epoch in (0, 0, 1))
    changed = 0
    for row in range(8):
        assert np.array_equal(first[row]["features"], again[row]["features"])
        changed += not np.array_equal(first[row]["features"], other[row]["features"])
        whole, hidden = plain[row]["features"], first[row]["features"]
        assert np.array_equal(hidden[hidden != 0], whole[hidden != 0])
        lost = (hidden == 0) & (whole != 0)
        bands, stretch = lost.all(axis=0), lost[:, ~lost.all(axis=0)].any(axis=1)
        assert bands.sum() <= 2 * 3 and stretch.sum() <= 0.15 * len(whole) + 1  # at most a fifth of 16 each
        assert np.array_equal(rows[row]["features"], whole)  # as evaluations read it
    assert changed >= 6


def test_the_first_epoch_begins_with_short_rows(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    sampler = TokenBudgetSampler(lengths, np.zeros(500, int), 120, seed=1)
    shuffled = [sampler.batches(epoch) for epoch in (0, 1)]
    sampler.begins_short = True
    longest = [int(lengths[batch].max()) for batch in sampler.batches(0)]
    assert longest == sorted(longest) and longest != [int(lengths[batch].max()) for batch in shuffled[0]]
    assert sorted(np.concatenate(sampler.batches(0))) == list(range(500))
    for mine, other in zip(sampler.batches(1), shuffled[1], strict=True):
        assert np.array_equal(mine, other)


def test_batches_that_begin_short_mix_targets_of_all_lengths():
    targets = np.random.default_rng(0).integers(1, 60, 500)
    sampler = TokenBudgetSampler(np.full(500, 20), targets, 800, seed=1)
    spread = [np.std(targets[batch]) for batch in sampler.batches(0)]
    sampler.begins_short = True
    mixed = [np.std(targets[batch]) for batch in sampler.batches(0)]
    assert np.mean(spread) < 2 and np.mean(mixed) > 10


@pytest.mark.slow
def test_a_run_on_speech_resumes_to_the_last_bit(tmp_path):
    words = ["--data.spec_augment=true", "--data.curriculum=shortest_first", "--training.schedule=inverse_sqrt"]
    words += ["--model.dropout=0.1"]
    recipe = write_recipe(tmp_path / "whole")
    train(parse_arguments([recipe, *words]))
    recipe = write_recipe(tmp_path / "parts")
    train(parse_arguments([recipe, *words, "--training.max_steps=3"]))
    train(parse_arguments([recipe, *words, "--resume"]))
    whole, parts = (
        FunTransformerForConditionalGeneration.from_pretrained(tmp_path / name / "run" / "model").state_dict()
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert read_metrics(tmp_path / "whole" / "run", "test") == read_metrics(tmp_path / "parts" / "run", "test")


@pytest.mark.slow
def test_a_trained_model_goes_on_with_its_own_extractor(tmp_path):
    recipe = write_recipe(tmp_path)
    train(parse_arguments([recipe]))
    path = tmp_path / "run" / "model" / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"normalize_vars": False}
    path.write_text(json.dumps(settings))
    further = yaml.safe_load(Path(recipe).read_text())
    further |= {"model": {"path": str(tmp_path / "run")}, "output_dir": str(tmp_path / "further")}
    Path(recipe).write_text(yaml.safe_dump(further))
    train(parse_arguments([recipe, "--training.max_steps=1"]))
    saved = AutoFeatureExtractor.from_pretrained(tmp_path / "further" / "model")
    assert not saved.normalize_vars
    path.unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json, which says how files are read"):
        prepared(recipe, "--overwrite")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["speech_to_text", "image_to_text"])
def test_eight_files_are_learned_by_heart(tmp_path, objective):
    recipe = write_recipe(tmp_path, objective, max_steps=250, batch_tokens=400, eval_steps=250, learning_rate=4e-3)
    words = ["--model.d_model=32", "--model.frontend_channels=8", "--training.schedule=linear"]
    scores = train(parse_arguments([recipe, *words, "--generation.metrics=wer,cer"])).scores
    assert scores["test"]["cer"] == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    contents = [(tmp_path / row["file"]).read_bytes() for row in rows]
    if objective == "speech_to_text":
        pipe, key = pipeline("automatic-speech-recognition", model=str(tmp_path / "run" / "model")), "text"
        answers = [pipe({"raw": read_sound(content)[0], "sampling_rate": RATE}) for content in contents]
    else:
        pipe, key = pipeline("image-to-text", model=str(tmp_path / "run" / "model")), "generated_text"
        answers = [pipe(Image.open(io.BytesIO(content)))[0] for content in contents]
    assert [answer[key] for answer in answers] == [row["text"] for row in rows]


@pytest.mark.slow
def test_the_python_of_readme_and_docs_runs(tmp_path, monkeypatch, capsys):
    names = {}
    for objective, name in (("speech_to_text", "spoken-digits"), ("image_to_text", "handwritten-digits")):
        folder = tmp_path / name
        folder.mkdir()
        train(parse_arguments([write_recipe(folder, objective, max_steps=1)]))
        names |= dict.fromkeys((f"runs/{name}/model", f"me/{name}"), str(folder / "run" / "model"))
    names["runs/demo-speech/model"] = names["me/spoken-digits"]
    names["runs/demo-formula/model"] = names["me/handwritten-digits"]
    names["recording.wav"] = str(tmp_path / "spoken-digits" / "files" / "0.wav")
    names |= dict.fromkeys(("line.png", "formula.png"), str(tmp_path / "handwritten-digits" / "files" / "0.png"))
    reader = "transformers.pipelines.automatic_speech_recognition.ffmpeg_read"
    monkeypatch.setattr(reader, lambda content, rate: read_sound(content)[0])  # ffmpeg need not be here
    blocks = []
    for page in ("README.md", "docs/pipelines.md"):
        text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
        blocks += [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "image-to-text" in block]
    assert len(blocks) == 2
    for block in blocks:
        exec(re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], block), {})
    assert "'text'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.packing=64"], "training.packing is for objective: "),
        (["--data.source_prefix=x"], "data.source_prefix is for sources of text"),
        (["--data.clean=true"], "data.clean is for sources of text"),
        (["--data.noise.upper=0.1"], "data.noise is for objective: "),
        (["--model.source_modality=image"], "Choose objective: image_to_text"),
        (["--objective=seq2seq", "--model.source_modality=speech"], "Choose objective: speech_to_text"),
        (["--objective=image_to_text", "--data.spec_augment=true"], "data.spec_augment is for speech"),
        (["--objective=seq2seq", "--data.curriculum=shortest_first", "--training.packing=64"], "Leave one of"),
        (["--training.bpe_dropout=0.1"], "training.bpe_dropout is for sources of text"),
        (["--model.model_type=seq2seq_rnn"], "no field of a seq2seq_rnn|reads text alone"),
    ],
)
def test_what_is_for_other_sources_is_refused(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        train(parse_arguments([write_recipe(tmp_path), *words]))


def test_a_model_of_text_does_not_go_on_with_speech(tmp_path, tiny_config):
    FunTransformerForConditionalGeneration(tiny_config()).save_pretrained(tmp_path / "text")
    recipe = write_recipe(tmp_path / "speech")
    path = tmp_path / "speech" / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"model": {"path": str(tmp_path / "text")}}))
    with pytest.raises(ValueError, match="reads text, and objective: speech_to_text gives it speech"):
        train(parse_arguments([recipe]))


def picture_file(picture) -> bytes:
    """A PNG file of a picture."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def test_pictures_of_all_modes_keep_what_is_drawn():
    drawn = np.full((10, 20), 255, np.uint8)
    drawn[3:6, 2:9] = 0
    expected = np.repeat(drawn[:, :, None], 3, axis=2)
    clear = Image.fromarray(np.dstack([np.zeros((10, 20, 3), np.uint8), 255 - drawn]))  # black ink, no ground
    wide = Image.fromarray(drawn.astype(np.uint16) * 257)
    for picture in (Image.fromarray(drawn), wide, clear, Image.fromarray(drawn).convert("P")):
        assert np.array_equal(np.asarray(read_picture(picture_file(picture))), expected), picture.mode
    tall = read_picture(picture_file(Image.fromarray(drawn.T)))
    assert tall.size == (20, 20) and np.array_equal(np.asarray(tall)[:, :10, 0], drawn.T)
    assert (np.asarray(tall)[:, 10:] == 255).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "not readable"),
        (picture_file(Image.new("RGB", (9, 9), "white")), "of one colour"),
        (picture_file(Image.new("1", (20_000, 20_000))), "too many pixels"),
    ],
)
def test_pictures_that_cannot_be_used_say_why(content, message):
    with pytest.raises(BadSource, match=message):
        read_picture(content)


def test_handwritten_digits_are_the_same_each_time_and_no_picture_is_in_two_splits():
    pytest.importorskip("sklearn")
    first, again = (list(islice(handwritten_digits("test"), 20)) for _ in range(2))
    assert first == again
    assert {len(text.split()) for _, text, _ in first} <= set(range(1, 8))
    ranges = sorted(DIGIT_IMAGES.values())
    assert all(end <= begin for (_, end), (begin, _) in pairwise(ranges))
    heights = {Image.open(io.BytesIO(content)).height for *_, content in first}
    assert heights == {32}


def test_formulas_differ_in_their_pictures_and_are_drawn_alike():
    pytest.importorskip("matplotlib")
    rows = list(islice(formulas("test"), 30))
    assert len({content for *_, content in rows}) == 30
    assert all(draw_formula(text) == content for _, text, content in rows)
    assert all(Image.open(io.BytesIO(content)).size[1] == 64 for *_, content in rows)
    assert draw_formula(r"\frac { x") is None and draw_formula(r"\nonsense") is None


def test_espeak_speaks_digits_in_voices_of_one_split_each():
    pytest.importorskip("espeakng_loader")
    first, again = (list(islice(spoken_digits("test"), 3)) for _ in range(2))
    assert [row[:2] for row in first] == [row[:2] for row in again]
    for name, text, content in first:
        samples, _ = read_sound(content)
        assert 0.1 < len(samples) / RATE / len(text.split()) < 1.0
        assert name.split("+")[1] in VOICES["test"]
    voices = [set(part) for part in VOICES.values()]
    assert not any(left & right for left, right in combinations(voices, 2))


def test_built_in_files_are_for_their_objective(tmp_path):
    recipe = write_recipe(tmp_path)
    own = ["--data.train.source_column=source", "--data.train.target_column=target"]
    with pytest.raises(ValueError, match="Choose objective: image_to_text"):
        prepared(recipe, "--data.train.dataset=builtin:handwritten-digits", *own)
    with pytest.raises(ValueError, match="has sources of text, and the objective reads speech"):
        prepared(recipe, "--data.train.dataset=builtin:cmudict", *own)


@pytest.mark.slow
def test_the_speech_demo_draws_what_the_model_listens_to(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    write_recipe(tmp_path)
    words = [f"--data.{part}.dataset={tmp_path / 'rows.jsonl'}" for part in ("train", "validation", "test")]
    words += [f"--data.{part}.source_column=file" for part in ("train", "validation", "test")]
    words += ["--training.max_steps=2", "--training.threads=1"]
    recipe = Path(__file__).parents[1] / "hub_configs" / "spoken-digits" / "recipe.yaml"
    monkeypatch.setattr("sys.argv", ["demo", str(recipe), str(tmp_path / "demo"), *words])
    demo.main()
    printed = capsys.readouterr().out
    assert re.search(r"demo: WER \d+\.\d % on 8 held-out recordings, \d+ s of training", printed)
    assert "  fa do re -> " in printed or "  do -> " in printed
    assert (tmp_path / "demo" / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_strings_of_digits_are_joined_from_recordings_of_their_part(tmp_path):
    with tarfile.open(tmp_path / "recordings.tar.xz", "w:xz") as tar:
        for digit in range(10):
            for number in range(10):  # longer ones are those of validation
                content = wav(tone("do", rate=8_000, seconds=0.05 if number < 5 else 0.1), rate=8_000)
                entry = tarfile.TarInfo(f"recordings/{digit}_ann_{number}.wav")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    recordings = read_recordings(tmp_path / "recordings.tar.xz")
    assert len(recordings) == 100
    (tmp_path / "validation").mkdir()
    rows = write_strings(recordings, "validation", tmp_path, np.random.default_rng(0))
    assert len(rows) == 300 and {len(row["text"].split()) for row in rows} == set(range(1, 8))
    for row in rows[:20]:
        samples, _ = read_sound((tmp_path / row["audio"]).read_bytes())
        spoken, pauses = 0.1 * len(row["text"].split()), 0.15 * (1 + len(row["text"].split()))
        assert spoken <= len(samples) / RATE <= spoken + pauses + 0.001


@pytest.mark.slow
@pytest.mark.parametrize("name", list(equal_time.SPEECH_SYSTEMS))
def test_the_peers_of_speech_are_timed_and_scored(tmp_path, name):
    recipe = write_recipe(tmp_path)
    words = [f"--data.validation.dataset={tmp_path / 'rows.jsonl'}", "--data.validation.source_column=file"]
    words += ["--training.metric_for_best_model=wer", "--generation.metrics=[wer]"]
    options = equal_time.read_options([str(recipe), "--minutes=0.05", "--points=2", *words])
    first, last = equal_time.train_one(name, None, 0.05, options)["curve"]
    assert 0.5 < first["seconds"] < last["seconds"] and 0 < first["tokens"] < last["tokens"]
