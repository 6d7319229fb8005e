"""Speech and pictures through the pipelines of transformers and of ours, on the Hub, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from hub_server import HubServer, Repo
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    Speech2TextFeatureExtractor,
    VisionEncoderDecoderModel,
    pipeline,
)

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration, cli
from fun_transformer.conversion.marian import check_exportable
from fun_transformer.engines.ctranslate2_folder import check_model
from fun_transformer.hub import check_repo
from fun_transformer.hub.code import auto_map
from fun_transformer.hub.push import model_contents, prepare_files, read_bytes
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "frontend_channels": 8}
SOURCES = {"speech": {"num_mel_bins": 20}, "image": {"image_height": 16}}
PICTURES = {"height": 16, "width": 1000}  # pictures keep their width up to the second


def processor(source):
    """What turns a recording or a picture into features."""
    if source == "speech":
        return Speech2TextFeatureExtractor(feature_size=20, num_mel_bins=20)
    from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil

    return DonutImageProcessorPil(size=PICTURES, do_align_long_axis=False, do_thumbnail=True, do_pad=False)


def save_model(folder, source):
    """A tiny model of speech or pictures with its tokenizer and processor, which writes six tokens."""
    tokenizer = train_tokenizer(["one two three four"] * 5, settings=TokenizerSettings(type="bpe", vocab_size=280))
    torch.manual_seed(4)
    config = FunTransformerConfig(
        vocab_size=len(tokenizer),
        source_modality=source,
        tie_word_embeddings=False,
        **SIZES,
        **HEADS,
        **SOURCES[source],
    )
    model = FunTransformerForConditionalGeneration(config).eval()
    for parameter in model.get_decoder().layers[0].encoder_attn.parameters():
        parameter.data *= 10  # the source decides more than the target so far
    letters = [number for token, number in tokenizer.get_vocab().items() if len(token) == 1 and token.isascii()]
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[letters] = False
    model.lm_head.weight.data[silent] = 0.0  # letters are seen in a text, bytes of other alphabets are not
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(source).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for source in SOURCES:
        save_model(folder / source, source)
    return folder


def recordings():
    """Three recordings, 16 kHz, of different lengths."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(length).astype(np.float32) * 0.1 for length in (16000, 5000, 9000)]


def pictures():
    """Three pictures, of different sizes; the last is higher than wide."""
    generator = np.random.default_rng(1)
    sizes = [(32, 150), (16, 50), (40, 30)]
    return [Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


# ── speech ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_speech_pipeline_of_transformers_takes_our_models(saved):
    pipe = pipeline("automatic-speech-recognition", model=str(saved / "speech"), device="cpu")
    assert pipe.type == "seq2seq"  # and not CTC, for which it takes what it does not know
    texts = [pipe(recording.copy())["text"] for recording in recordings()]
    assert len(set(texts)) > 1
    model = AutoModelForSpeechSeq2Seq.from_pretrained(saved / "speech").eval()
    tokenizer = AutoTokenizer.from_pretrained(saved / "speech")
    for recording, text in zip(recordings(), texts):
        features = processor("speech")(recording, sampling_rate=16000, return_tensors="pt")
        output_ids = model.generate(**features, num_beams=5)  # those of the pipeline
        assert tokenizer.decode(output_ids[0], skip_special_tokens=True) == text
    assert pipe({"array": recordings()[0], "sampling_rate": 16000})["text"] == texts[0]
    for options in ({}, {"batch_size": 3}):
        assert [record["text"] for record in pipe(recordings(), **options)] == texts


def test_silence_gives_a_text_and_no_error(saved):
    pipe = pipeline("automatic-speech-recognition", model=str(saved / "speech"), device="cpu")
    with np.errstate(divide="ignore", invalid="ignore"):
        assert isinstance(pipe(np.zeros(8000, dtype=np.float32))["text"], str)


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_image_pipeline_reads_pictures_of_all_widths(saved, tmp_path):
    pipe = pipeline("image-to-text", model=str(saved / "image"), device="cpu")
    records = [pipe(picture) for picture in pictures()]
    assert [set(record[0]) for record in records] == [{"generated_text"}] * 3
    assert len({record[0]["generated_text"] for record in records}) > 1
    model = AutoModelForImageTextToText.from_pretrained(saved / "image").eval()
    features = processor("image")(pictures()[0], return_tensors="pt")
    text = pipe.tokenizer.decode(model.generate(**features)[0], skip_special_tokens=True)
    assert text == records[0][0]["generated_text"]
    for options in ({}, {"batch_size": 3}, {"batch_size": 2}):
        assert pipe(pictures(), **options) == records
    pictures()[0].save(tmp_path / "line.png")
    assert pipe(str(tmp_path / "line.png")) == records[0]
    assert list(pipe(picture for picture in pictures())) == records
    several = pipe(pictures()[0], num_beams=3, num_return_sequences=3, max_new_tokens=4)
    assert len(several) == 3 and all(len(record["generated_text"]) <= 4 for record in several)
    assert pipe(pictures()[0], generate_kwargs={"max_new_tokens": 2}) == pipe(pictures()[0], max_new_tokens=2)
    pipe.save_pretrained(tmp_path / "again")
    assert pipeline("image-to-text", model=str(tmp_path / "again"), device="cpu")(pictures()) == records


def save_trocr(folder, tokenizer):
    """A tiny TrOCR as it is on the Hub: a stock class, with a processor of both."""
    from transformers import TrOCRConfig, TrOCRForCausalLM, TrOCRProcessor, ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vision = ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes))
    words = TrOCRConfig(vocab_size=len(tokenizer), d_model=16, decoder_layers=1, decoder_attention_heads=2)
    words.update({"decoder_ffn_dim": 24, "cross_attention_hidden_size": 16})
    model = VisionEncoderDecoderModel(encoder=vision, decoder=TrOCRForCausalLM(words))
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    TrOCRProcessor(image_processor, tokenizer).save_pretrained(folder)
    return model


def save_donut(folder, tokenizer):
    """A tiny Donut, whose processor pads pictures to one size."""
    from transformers import DonutProcessor, DonutSwinConfig, DonutSwinModel, MBartConfig, MBartForCausalLM
    from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil

    vision = DonutSwinModel(DonutSwinConfig(image_size=(32, 32), patch_size=4, embed_dim=8, depths=[1], num_heads=[2]))
    width = vision.config.hidden_size
    sizes = {"d_model": width, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    words = MBartConfig(vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True, **sizes)
    model = VisionEncoderDecoderModel(encoder=vision, decoder=MBartForCausalLM(words))
    image_processor = DonutImageProcessorPil(size={"height": 32, "width": 32})
    DonutProcessor(image_processor, tokenizer).save_pretrained(folder)
    return model


@pytest.mark.parametrize("save", [save_trocr, save_donut])
def test_the_image_pipeline_reads_with_stock_models(saved, tmp_path, save):
    """Those for which "image-text-to-text" asks for a prompt, which they do not have."""
    tokenizer = AutoTokenizer.from_pretrained(saved / "image")
    torch.manual_seed(0)
    model = save(tmp_path, tokenizer).eval()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.generation_config.update(decoder_start_token_id=tokenizer.bos_token_id, max_new_tokens=5, **ids)
    model.save_pretrained(tmp_path)
    pipe = pipeline("image-to-text", model=str(tmp_path), device="cpu")
    assert type(pipe.model) is VisionEncoderDecoderModel
    records = [pipe(picture) for picture in pictures()]
    features = pipe.image_processor(pictures()[1], return_tensors="pt")
    expected = tokenizer.decode(model.generate(features["pixel_values"])[0], skip_special_tokens=True)
    assert records[1] == [{"generated_text": expected}]
    assert pipe(pictures(), batch_size=3) == records


def test_pictures_of_different_sizes_are_refused_where_a_model_takes_no_mask(saved):
    class WithoutMask(FunTransformerForConditionalGeneration):
        def forward(self, pixel_values=None, decoder_input_ids=None, encoder_outputs=None, **kwargs):
            raise NotImplementedError

    pipe = pipeline("image-to-text", model=str(saved / "image"), device="cpu")
    pipe.model.__class__ = WithoutMask
    with pytest.raises(ValueError, match=r"need one size.*widths of 50 to 75"):
        pipe(pictures()[:2], batch_size=2)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("task", ["text2text-generation", "translation", "summarization"])
def test_pipelines_of_text_refuse_other_sources(saved, source, task):
    with pytest.raises(ValueError, match=f'not text, which the task "{task}" needs.*"automatic-speech-recognition"'):
        pipeline(task, model=str(saved / source), device="cpu")


def test_the_image_pipeline_refuses_what_reads_no_pixels(saved, tiny_config):
    with pytest.raises(ValueError, match="input is input_features"):
        pipeline("image-to-text", model=str(saved / "speech"), image_processor=processor("image"), device="cpu")
    pipe = pipeline("image-to-text", model=str(saved / "image"), device="cpu")
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        pipe(pictures()[0], max_new_tokens=0)
    with pytest.raises(ValueError, match="pass image_processor="):
        type(pipe)(pipe.model, tokenizer=pipe.tokenizer, task="image-to-text")


@pytest.mark.parametrize("source", SOURCES)
def test_commands_and_formats_of_text_refuse_other_sources(saved, source, tmp_path, capsys):
    model = FunTransformerForConditionalGeneration.from_pretrained(saved / source)
    for check in (check_model, check_exportable):
        with pytest.raises(ValueError, match=f"reads text, and the source of this model is {source}"):
            check(model)
    assert cli.main(["translate", "--model", str(saved / source), "one"]) == 2
    assert f"the source of this model is {source}" in capsys.readouterr().err


# ── on the Hub ────────────────────────────────────────────────────────────────────────────────────────────────────


def published(folder, name):
    """What `push_model_repo` sends of a folder, by name."""
    files = prepare_files(model_contents(folder), name, {"license": "mit"})
    return {name: read_bytes(content) for name, content in files.items()}


@pytest.mark.parametrize(
    ("source", "auto_class"),
    [("speech", "AutoModelForSpeechSeq2Seq"), ("image", "AutoModelForImageTextToText")],
)
def test_a_repo_names_the_classes_of_its_source_and_needs_a_processor(saved, source, auto_class, tmp_path):
    folder = shutil.copytree(saved / source, tmp_path / "model")
    files = published(folder, "me/digits")
    (tmp_path / "repo").mkdir()
    for name, content in files.items():
        (tmp_path / "repo" / name).write_bytes(content)
    config = json.loads((tmp_path / "repo" / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoTokenizer", auto_class}
    assert set(config.get("custom_pipelines", {})) == ({"image-to-text"} if source == "image" else set())
    assert ("pipeline_image_to_text.py" in files) == (source == "image")
    assert "frontends.py" in files and "pipeline_fun_transformer.py" not in files
    card = files["README.md"].decode()
    task = "automatic-speech-recognition" if source == "speech" else "image-to-text"
    assert f"pipeline_tag: {task}" in card and f'pipeline("{task}", model="me/digits"' in card and auto_class in card
    maker, called = {
        "speech": ("AutoFeatureExtractor", "recording.wav"),
        "image": ("AutoImageProcessor", "picture.png"),
    }[source]
    for line in (f'extractor = {maker}.from_pretrained("me/digits")', f'pipe("{called}")'):
        assert card.count(line) == 2  # with and without the package
    assert check_repo(tmp_path / "repo") == []
    pipe, again = (pipeline(task, model=str(place), device="cpu") for place in (saved / source, tmp_path / "repo"))
    inputs = recordings() if source == "speech" else pictures()
    assert pipe(inputs[1]) == again(inputs[1])  # without trust
    (tmp_path / "repo" / "preprocessor_config.json").unlink()
    (problem,) = check_repo(tmp_path / "repo")
    assert problem.startswith("preprocessor_config.json is missing: save the ")
    config["source_modality"] = "smell"
    (tmp_path / "repo" / "config.json").write_text(json.dumps(config))
    assert "config.json names smell, which a plug-in adds" in " ".join(check_repo(tmp_path / "repo"))


def test_a_repo_of_a_text_model_names_no_class_of_another_source(tiny_config):
    names = auto_map(tiny_config().to_diff_dict(), {})
    assert "AutoModelForSeq2SeqLM" in names and not {"AutoModelForSpeechSeq2Seq", "AutoModelForImageTextToText"} & set(
        names
    )


def test_evaluate_on_rows_of_text_points_to_the_run(saved, tmp_path, capsys):
    (tmp_path / "rows.tsv").write_text("source\ttarget\na.wav\tone\n", encoding="utf-8")
    assert cli.main(["evaluate", str(saved / "speech"), str(tmp_path / "rows.tsv")]) == 2
    assert "its source is speech, and the rows here are texts. Score it by its run" in capsys.readouterr().err


PULL = """
import json, sys
sys.modules["fun_transformer"] = None
import numpy as np
from PIL import Image
from transformers import pipeline

with np.load("inputs.npz") as inputs:
    recordings = [inputs[f"recording{i}"] for i in range(3)]
    pictures = [Image.fromarray(inputs[f"picture{i}"]) for i in range(3)]
found = {}
for task, name, rows in (("automatic-speech-recognition", "speech", recordings), ("image-to-text", "image", pictures)):
    pipe = pipeline(task, model=f"me/{name}", device="cpu", trust_remote_code=True)
    found[name] = pipe(rows, batch_size=3)
    found[f"{name} code"] = type(pipe.model).__module__.split(".")[0]
    pipe.save_pretrained(name)
    found[f"{name} again"] = pipeline(task, model=name, device="cpu", trust_remote_code=True)(rows)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_same_lines_work_without_the_package(saved, strangers, tmp_path):
    inputs = {f"recording{i}": recording for i, recording in enumerate(recordings())}
    inputs |= {f"picture{i}": np.array(picture) for i, picture in enumerate(pictures())}
    np.savez(tmp_path / "inputs.npz", **inputs)
    hub = HubServer()
    for source in SOURCES:
        hub.repos[f"me/{source}"] = Repo()
        hub.repos[f"me/{source}"].commit(published(saved / source, f"me/{source}"))
    with hub:
        output = strangers.python("-c", PULL, cwd=tmp_path, **hub.environment(tmp_path))
    found = json.loads(output.splitlines()[-1])
    speech = pipeline("automatic-speech-recognition", model=str(saved / "speech"), device="cpu")
    assert found["speech"] == found["speech again"] == speech(recordings())
    images = pipeline("image-to-text", model=str(saved / "image"), device="cpu")
    assert found["image"] == found["image again"] == images(pictures())
    assert found["speech code"] == found["image code"] == "transformers_modules"
