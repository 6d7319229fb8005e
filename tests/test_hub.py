"""Model repos: what is published, what is missing in one, and the same line with and without the package."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, HubServer, Repo
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, MarianConfig, MarianMTModel, pipeline

import fun_transformer
from fun_transformer import HEADS, FunTransformerConfig, FunTransformerForConditionalGeneration, cli
from fun_transformer.hub import Score, TrainingFacts, check_repo, push_model_repo, training_card
from fun_transformer.hub.card import complete_card, read_header
from fun_transformer.hub.check import find_problems
from fun_transformer.hub.code import travelling_classes
from fun_transformer.hub.contents import local_files, secret_problems
from fun_transformer.hub.push import model_contents, prepare_files, read_bytes
from fun_transformer.hub.usage import Loading
from fun_transformer.hub.weights import weight_problems
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

ROOT = Path(__file__).parents[1]
TEXTS = ["the cat sat", "今天 吃 什么", "the cat sat on the mat"]
INDEX = "model.safetensors.index.json"
SOURCE, TARGET = [[5, 9, 13, 2]], [[1, 7, 8]]
OUR_TASK = {"impl": "pipeline_fun_transformer.TranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"], "type": "text"}
CARD = """---
# chosen by hand
license: mit
---

# A cat

pipeline("translation", model="PATH_OR_NAME_OF_THIS_MODEL")
"""


def save_model(folder, seed=0, **options):
    """A tiny model with its tokenizer, which generates at most 6 tokens; gives its logits too."""
    tokenizer = train_tokenizer(TEXTS * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20}
    config = FunTransformerConfig(vocab_size=len(tokenizer), **sizes)
    model = FunTransformerForConditionalGeneration(config).eval()
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        return model(input_ids=torch.tensor(SOURCE), decoder_input_ids=torch.tensor(TARGET)).logits


def save_marian(folder):
    """A tiny model of another family, with our tokenizer."""
    tokenizer = train_tokenizer(TEXTS * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    torch.manual_seed(3)
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **heads, **ids))
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model, and the same in shards."""
    for name, options in (("model", {}), ("shards", {"max_shard_size": "5KB"})):
        save_model(tmp_path_factory.getbasetemp() / "saved" / name, **options)
    return tmp_path_factory.getbasetemp() / "saved"


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved / "model", tmp_path / "model")


@pytest.fixture
def repo(folder, tmp_path):
    """A folder with all that `push_model_repo` publishes."""
    (tmp_path / "repo").mkdir()
    for name, content in prepare_files(model_contents(folder), "me/cat", {}).items():
        (tmp_path / "repo" / name).write_bytes(read_bytes(content))
    return tmp_path / "repo"


# ── the card after a training ─────────────────────────────────────────────────────────────────────────────────────

SCORES = [
    Score("loss", "cross-entropy (nats a token)", "validation", 1.23456),
    Score("bleu", "BLEU", "validation", 20.0, "nrefs:1|case:mixed"),
    Score("bleu", "BLEU", "test", 21.0, "nrefs:1|case:mixed"),
]
SAMPLES = [{"source": f"今天|{i}", "references": [f"to{i}", "x"], "prediction": f"day\n{i}"} for i in range(20)]


def test_a_card_says_scores_facts_and_use_and_the_hub_reads_its_results():
    facts = TrainingFacts("train.zh and train.en", "run me", {"steps": "2,200", "seed": 42}, SCORES, SAMPLES)
    text = training_card("mine", "translation", facts)
    card = ModelCard(text)
    assert card.data.tags == ["fun_transformer", "translation"] and card.data.library_name == "transformers"
    results = [(result.metric_type, result.metric_value, result.metric_name) for result in card.data.eval_results]
    assert results[1:] == [("bleu", 20.0, "BLEU, validation"), ("bleu", 21.0, "BLEU, test")]
    assert results[0] == ("loss", 1.2346, "cross-entropy (nats a token), validation")
    assert {result.dataset_name for result in card.data.eval_results} == {"train.zh and train.en"}
    assert "|  | validation | test |" in text and "| cross-entropy (nats a token) | 1.23 |  |" in text
    assert "| BLEU | 20.00 | 21.00 |" in text and text.count("- BLEU: `nrefs:1|case:mixed`") == 1
    assert "| data | train.zh and train.en |\n| steps | 2,200 |\n| seed | 42 |" in text
    assert "| 今天\\|0 | to0 | day 0 |" in text and text.count("| day ") == 8
    assert "```bash\nrun me\n```" in text and 'print(pipe("今天|10"))' in text
    assert complete_card(text, "me/mine", Loading("AutoModelForSeq2SeqLM"), {}).count('model="me/mine"') == 2


def test_a_card_of_an_unmeasured_model_has_no_empty_sections():
    text = training_card("mine", "fill-mask", TrainingFacts("a.txt", "run", {}))
    assert "Scores" not in text and "Examples" not in text and "\n\n\n" not in text
    assert set(read_header(text)) == {"library_name", "tags"}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "train --data.train.source /home/me/a.zh --output_dir '~/my data/run/'",
            "--data.train.source a.zh --output_dir run",
        ),
        ("train --output_dir=/home/me/run ../secret/r.yaml", "--output_dir=run r.yaml"),
        ("""train '--x=["/srv/b c/x.zh","../y/z"]' [/a/b,/c/d]""", """'--x=["x.zh","z"]' '[b,d]'"""),
        (r"train 'C:\Users\me\a.zh' D:/data/b.zh", "a.zh b.zh"),
        ("train /home/me/src/hub_configs/g2p-en/recipe.yaml", "hub_configs/g2p-en/recipe.yaml"),
        (
            "train me/data --hub https://a.b/c --lr 3e-4 --ratio 1/2",
            "me/data --hub https://a.b/c --lr 3e-4 --ratio 1/2",
        ),
    ],
)
def test_no_folder_of_this_machine_is_in_the_command_of_a_card(command, expected):
    text = training_card("mine", "translation", TrainingFacts("a", command, {}))
    assert re.search(r"```bash\n(.*)\n```", text)[1] == f"train {expected}"
    is_shortened = shlex.split(command)[1:] != shlex.split(expected)
    assert ("Of each path, the last part is shown" in text) is is_shortened


def test_relative_paths_that_exist_lose_their_folders_too(tmp_path, monkeypatch):
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "a.zh").touch()
    monkeypatch.chdir(tmp_path)
    text = training_card("mine", "translation", TrainingFacts("a", "train --source client/a.zh", {}))
    assert "train --source a.zh\n" in text


# ── what is published ─────────────────────────────────────────────────────────────────────────────────────────────


def test_every_registered_head_and_task_is_named_and_its_code_is_there(folder):
    files = prepare_files(model_contents(folder), "me/cat", {})
    config = json.loads(files["config.json"])
    assert set(config["auto_map"]) >= {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoTokenizer"}
    heads = {name for name in fun_transformer.__all__ if re.match(r"FunTransformer(For|Model|Encoder)", name)}
    named = {value.split(".")[1] for value in config["auto_map"].values() if isinstance(value, str)}
    assert heads <= named
    assert set(config["custom_pipelines"]) == {"translation", "summarization", "text2text-generation"}
    assert (
        json.loads(files["tokenizer_config.json"])["auto_map"]["AutoTokenizer"][1]
        in config["auto_map"]["AutoTokenizer"]
    )
    flat = {path.name for path in (ROOT / "fun_transformer").glob("*.py")} - {"__init__.py", "cli.py"}
    assert {name for name in files if name.endswith(".py")} <= flat
    assert files["model.safetensors"] == folder / "model.safetensors"


def test_the_folder_is_never_changed_and_leftovers_of_training_stay_at_home(folder):
    for name in ("training_args.bin", "optimizer.pt", ".secret"):
        (folder / name).write_bytes(b"x")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    files = prepare_files(model_contents(folder), "me/cat", {"license": "mit"})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not {"training_args.bin", "optimizer.pt", ".secret"} & set(files)


def test_a_card_keeps_its_text_and_gets_what_it_lacks(folder):
    (folder / "README.md").write_text(CARD)
    card = prepare_files(model_contents(folder), "me/cat", {"language": ["zh", "en"]})["README.md"].decode()
    assert read_header(card) == {
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "tags": ["fun_transformer"],
        "license": "mit",
        "language": ["zh", "en"],
    }
    assert 'pipeline("translation", model="me/cat")' in card
    assert 'pipeline("translation", model="me/cat", trust_remote_code=True)' in card
    (folder / "README.md").write_text(card)
    assert prepare_files(model_contents(folder), "me/cat", {})["README.md"].decode() == card


@pytest.mark.parametrize(
    ("head", "auto_class", "task"),
    [
        ("ForMaskedLM", "AutoModelForMaskedLM", "fill-mask"),
        ("ForSequenceClassification", "AutoModelForSequenceClassification", "text-classification"),
        ("EncoderModel", "AutoModelForTextEncoding", "feature-extraction"),
    ],
)
def test_the_card_tells_how_to_use_each_head_and_only_translators_get_pipelines(folder, head, auto_class, task):
    edit_json(folder / "config.json", architectures=[f"FunTransformer{head}"])
    files = prepare_files(model_contents(folder), "me/cat", {})
    card = files["README.md"].decode()
    assert read_header(card)["pipeline_tag"] == task
    assert f'{auto_class}.from_pretrained("me/cat", trust_remote_code=True)' in card and f'pipeline("{task}", ' in card
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(block, "README.md", "exec")
    assert "custom_pipelines" not in json.loads(files["config.json"])


def test_another_models_folder_gets_the_pipelines_and_what_is_ours_in_it(tmp_path):
    """Marian's own code is in transformers, but its task is not any more."""
    save_marian(tmp_path)
    files = prepare_files(model_contents(tmp_path), "me/marian", {})
    tokenizer = [None, "tokenization_fun_transformer.FunTransformerTokenizer"]
    assert json.loads(files["config.json"])["auto_map"] == {"AutoTokenizer": tokenizer}
    assert "translation" in json.loads(files["config.json"])["custom_pipelines"]
    ours = {f"pipeline_{name}.py" for name in ("batches", "fun_transformer", "options", "records", "workers")}
    ours |= {"number_types.py", "text_parts.py", "tokenization_fun_transformer.py"}
    assert {name for name in files if name.endswith(".py")} == ours
    (tmp_path / "tokenizer_config.json").unlink()
    files = prepare_files(model_contents(tmp_path), "me/marian", {})
    assert files["config.json"] == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("repo_id", "pickle", "words"),
    [("cat", None, "owner"), ("me/cat", "pytorch_model.bin", "pickle"), ("me/cat", "embeddings.pkl", "pickle")],
)
def test_a_push_that_would_not_work_is_refused_before_it_begins(folder, monkeypatch, repo_id, pickle, words):
    monkeypatch.setattr("fun_transformer.hub.push.HfApi", None)  # nothing is asked of the Hub
    if pickle:
        (folder / pickle).write_bytes(b"x")
    with pytest.raises(ValueError, match=words):
        push_model_repo(folder, repo_id)


@pytest.fixture
def no_hub(monkeypatch):
    """Nothing is asked of the Hub."""
    monkeypatch.setattr("fun_transformer.hub.push.HfApi", None)


def test_only_what_a_model_repo_holds_is_published_and_the_rest_is_named(folder, no_hub):
    (folder / "README.md").write_text(CARD + '![curve](curve.png) <img src="map.svg">\n')
    kept = {"curve.png", "map.svg", "LICENSE", "NOTICE.txt", "vocab.json", "spiece.model", "chat_template.jinja"}
    left = {
        "events.out.tfevents.1",
        "predictions.jsonl",
        "other.png",
        "rows.json",
        "word2vec.model",
        "notes.md",
        "x.py",
    }
    left |= {"model-00001-of-00002.safetensors", INDEX, "optimizer.pt"}
    for name in kept | left:
        (folder / name).write_text("{}")
    (folder / "checkpoints").mkdir()
    contents = model_contents(folder)
    assert kept <= set(contents.published) and set(contents.left_out) == left | {"checkpoints/"}
    assert contents.problems == [] and check_repo(folder) == find_problems(local_files(folder, contents.published))
    assert kept <= set(prepare_files(contents, "me/cat", {}))


def test_code_that_a_config_names_is_published_with_what_it_imports(folder):
    edit_json(folder / "config.json", auto_map={"AutoModel": "their_model.Model"})
    (folder / "their_model.py").write_text("from .their_parts import x\n")
    (folder / "their_parts.py").write_text("import os\n")
    (folder / "script.py").write_text("import os\n")
    contents = model_contents(folder)
    assert contents.left_out == ["script.py"] and {"their_model.py", "their_parts.py"} <= set(contents.published)


def link_to_a_secret(folder):
    (folder.parent / "key").write_text("a secret")
    (folder / "notes.txt").symlink_to(folder.parent / "key")


def link_the_weights(folder):
    (folder / "model.safetensors").rename(folder.parent / "blob")
    (folder / "model.safetensors").symlink_to(folder.parent / "blob")


def write(name, text):
    return lambda folder: (folder / name).write_bytes(text.encode())


TOKEN_TEXT = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (link_to_a_secret, "notes.txt: links"),
        (link_the_weights, "model.safetensors: links"),
        *((write(name, "x"), f"{name} has the name of a secret") for name in ("token", "hf_token.txt", "id_rsa")),
        *((write(name, "x"), f"{name} has the name of a secret") for name in ("prod.env", "key.pem", "api-keys.json")),
        (write("README.md", f"# A cat\n\nlogin('{TOKEN_TEXT}')\n"), "README.md, line 3, has what looks like a token"),
        (write("README.md", "git clone https://me:pass@huggingface.co/x\n"), "a password in an address"),
        (
            write("LICENSE", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            "LICENSE, line 1, has what looks like a private key",
        ),
        (write("vocab.txt", "AKIA" + "A1" * 8), "vocab.txt, line 1, has what looks like an API key"),
        (lambda folder: edit_json(folder / "generation_config.json", x=TOKEN_TEXT), "generation_config.json, line"),
        (lambda folder: (folder / "README.md").write_text("# A", encoding="utf-16"), "README.md is UTF-16"),
    ],
)
def test_links_and_secrets_are_refused_by_push_and_check_alike(folder, no_hub, spoil, words):
    spoil(folder)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        push_model_repo(folder, "me/cat")
    problems = check_repo(folder)
    assert any(words in problem for problem in problems)
    assert TOKEN_TEXT not in str(error.value) + str(problems)


def test_our_own_texts_hold_no_secrets(repo):
    assert list(secret_problems(local_files(repo, [path.name for path in repo.iterdir()]))) == []


# ── damaged weights ───────────────────────────────────────────────────────────────────────────────────────────────


def edit_weights(change, name="model.safetensors"):
    """A function that changes the tensors of a folder."""

    def edit(folder):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return edit


def edit_bytes(change, name="model.safetensors"):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def edit_header(change):
    """A function that changes the header of a folder's weights, whose length stays right."""

    def edit(data):
        size = int.from_bytes(data[:8], "little")
        header = change(json.loads(data[8 : 8 + size]))
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    return edit_bytes(edit)


def set_value(value, dtype=None):
    def change(tensors):
        if dtype:
            tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})
        tensors[FC1].view(-1)[7] = value

    return change


FC1 = "model.encoder.layers.0.feed_forward.fc1.weight"
DAMAGES = [
    (edit_bytes(lambda data: data[: len(data) // 2]), "model.safetensors is damaged: it has"),
    (edit_bytes(lambda data: data[:-1]), "model.safetensors is damaged: it has"),
    (edit_bytes(lambda data: data + b"x"), "model.safetensors is damaged: it has"),
    (edit_bytes(lambda data: data[:100]), "it ends after 100 bytes, inside its header"),
    (edit_bytes(lambda data: b""), "it has 0 bytes"),
    (edit_bytes(lambda data: b"\xff" * 100), "does not begin as a safetensors file does"),
    (edit_bytes(lambda data: b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
    (edit_bytes(lambda data: data[:8] + b"[" + data[9:]), "its header is no list of tensors"),
    (edit_bytes(lambda data: (9000).to_bytes(8, "little") + b"[" * 9000), "its header is no list of tensors"),
    (edit_header(lambda header: [header]), "its header is no list of tensors"),
    (edit_header(lambda header: {"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 12]}}), "no list of tensors"),
    (edit_header(lambda header: header | {FC1: header[FC1] | {"shape": [24, 15]}}), "is not where its header says"),
    (
        edit_header(lambda header: header | {FC1: header[FC1] | {"data_offsets": [0, 8]}}),
        "is not where its header says",
    ),
    (edit_weights(lambda tensors: tensors.clear()), "it holds no tensors"),
    (edit_weights(lambda tensors: tensors.pop(FC1)), f"The weights lack {FC1}, which FunTransformerForConditional"),
    (edit_weights(lambda tensors: tensors.pop("model.encoder.embed_tokens.weight")), "The weights lack"),
    (edit_weights(lambda tensors: tensors.update({FC1: torch.zeros(24, 15)})), "has the shape (24, 15), but"),
    (edit_weights(lambda tensors: tensors.update(more=torch.zeros(2))), "The weights hold more, which the model"),
    (edit_weights(set_value(float("nan"))), f"NaN or infinite, in {FC1}"),
    (edit_weights(set_value(float("-inf"), torch.float16)), f"NaN or infinite, in {FC1}"),
    (edit_weights(set_value(float("nan"), torch.bfloat16)), f"NaN or infinite, in {FC1}"),
    (lambda folder: edit_json(folder / "config.json", decoder_layers=1), "and 23 more, which the model of config"),
    (edit_header(lambda header: header | {FC1: header[FC1] | {"shape": [1e9, "a"]}}), "no list of tensors"),
    (lambda folder: edit_json(folder / "config.json", decoder_layers=10**9), "decoder_layers=1000000000, but there"),
    (lambda folder: edit_json(folder / "config.json", d_model="16"), "config.json describes no FunTransformerFor"),
    (lambda folder: edit_json(folder / "config.json", d_model=17), "config.json describes no FunTransformerFor"),
    (
        lambda folder: edit_json(folder / "config.json", architectures={"a": 1}),
        "architectures=\"{'a': 1}\", which must",
    ),
    (lambda folder: edit_json(folder / "config.json", auto_map={"a": 1}), "auto_map=\"{'a': 1}\", which must be"),
    (
        lambda folder: edit_json(folder / "config.json", custom_pipelines=["x"]),
        "custom_pipelines=\"['x']\", which must",
    ),
    (lambda folder: edit_json(folder / "config.json", model_type=5), "model_type='5', which must be a name"),
    (
        lambda folder: edit_json(folder / "tokenizer_config.json", tokenizer_class=[]),
        "tokenizer_class='[]', which must",
    ),
    (write("generation_config.json", "{"), "generation_config.json is no JSON"),
    (write("config.json", "[" * 100_000), "config.json is no JSON"),
    (write("config.json", "\ufeff{}"), "config.json is no JSON"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_models_are_refused_by_push_and_check_alike(folder, no_hub, damage, words):
    damage(folder)
    assert any(words in problem for problem in check_repo(folder)), check_repo(folder)
    with pytest.raises(ValueError, match=re.escape(words)):
        push_model_repo(folder, "me/cat")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            edit_weights(lambda tensors: tensors.update(x=tensors.popitem()[1]), "model-00001-of-00008.safetensors"),
            "not in its files",
        ),
        (
            edit_bytes(lambda data: data[:-1], "model-00002-of-00008.safetensors"),
            "model-00002-of-00008.safetensors is",
        ),
        (lambda folder: (folder / "model-00003-of-00008.safetensors").unlink(), f"is missing: {INDEX} names it"),
        (write(INDEX, '{"weight_map": []}'), "has no weight_map"),
        (write(INDEX, '{"weight_map": {"w": "../model.safetensors"}}'), "has no weight_map"),
        (write(INDEX, '{"weight_map": {"w": ["a"]}}'), "has no weight_map"),
        (write(INDEX, "{"), f"{INDEX} is no JSON"),
    ],
)
def test_damaged_shards_are_found(saved, tmp_path, no_hub, damage, words):
    shutil.copytree(saved / "shards", tmp_path, dirs_exist_ok=True)
    assert (tmp_path / "model-00001-of-00008.safetensors").exists()
    assert check_repo(tmp_path) == [problem for problem in check_repo(tmp_path) if "safetensors" not in problem]
    damage(tmp_path)
    assert any(words in problem for problem in check_repo(tmp_path)), check_repo(tmp_path)
    with pytest.raises(ValueError, match=re.escape(words)):
        push_model_repo(tmp_path, "me/cat")


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_whole_weights_have_no_problems(tmp_path, tie, dtype):
    config = FunTransformerConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, tie_word_embeddings=tie
    )
    for head in HEADS.values():
        head(config).to(dtype).save_pretrained(tmp_path / head.__name__)
        files = tmp_path / head.__name__
        config_fields = json.loads((files / "config.json").read_text())
        assert list(weight_problems(local_files(files, os.listdir(files)), config_fields)) == []


def test_other_families_weights_are_checked_with_what_their_library_knows(tmp_path):
    """Marian computes its positions, ties three embeddings, and reads old names."""
    save_marian(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    files = local_files(tmp_path, os.listdir(tmp_path))
    assert list(weight_problems(files, config)) == []
    assert list(weight_problems(files, config | {"model_type": "unknown"})) == []
    edit_weights(lambda tensors: tensors.pop("model.encoder.layers.0.fc1.bias"))(tmp_path)
    assert any("lack model.encoder.layers.0.fc1.bias" in problem for problem in weight_problems(files, config))


# ── what is missing in a repo ─────────────────────────────────────────────────────────────────────────────────────


def test_a_published_repo_has_no_problems(repo):
    assert check_repo(repo) == []


def test_a_folder_as_saved_lacks_the_heads_the_tasks_and_a_card(folder):
    problems = " ".join(check_repo(folder))
    for name in ("AutoModelForSeq2SeqLM", "AutoTokenizer", "summarization", "README.md"):
        assert name in problems


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def damage_weights(repo):
    (repo / "model.safetensors").rename(repo / "pytorch_model.bin")


def damage_shards(repo):
    (repo / "model.safetensors").unlink()
    (repo / INDEX).write_text('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}')


def damage_map(repo):
    auto_map = json.loads((repo / "config.json").read_text())["auto_map"]
    edit_json(repo / "config.json", auto_map={n: v for n, v in auto_map.items() if n != "AutoModelForSeq2SeqLM"})


def add_to_model_code(line):
    def damage(repo):
        with open(repo / "modeling_fun_transformer.py", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_weights, ["model.safetensors is missing", "pytorch_model.bin is a pickle"]),
        (damage_shards, ["model-00001-of-00002.safetensors is missing"]),
        (damage_map, ["lacks AutoModelForSeq2SeqLM"]),
        (lambda repo: (repo / "tokenizer.json").unlink(), ["tokenizer.json"]),
        (lambda repo: (repo / "config.json").unlink(), ["config.json is missing"]),
        (
            lambda repo: (repo / "config.json").rename(repo / "adapter_config.json"),
            ["adapter_model.safetensors is missing", "does not name the model that it is for"],
        ),
        (lambda repo: (repo / "config.json").write_text("{"), ["config.json is no JSON"]),
        (lambda repo: (damage_shards(repo), (repo / INDEX).write_text("[]")), ["json holds no JSON object"]),
        (lambda repo: (repo / "README.md").write_text("---\na: [\n---\n"), ["no YAML"]),
        (lambda repo: edit_json(repo / "config.json", vocab_size=20), ["vocab_size=20"]),
        (lambda repo: edit_json(repo / "config.json", pad_token_id=7), ["pad_token_id is 7"]),
        (
            lambda repo: edit_json(repo / "tokenizer_config.json", auto_map={"AutoTokenizer": ["you/it--t.T", None]}),
            ["you/it--t.T is code in another repo"],
        ),
        (lambda repo: (repo / "attention.py").unlink(), ["attention.py is missing"]),
        (add_to_model_code("from .hub.card import x"), ["from .hub.card import"]),
        (add_to_model_code("from . import x"), ["does not follow"]),
        (add_to_model_code("import fun_transformer.losses"), ["imports fun_transformer, which"]),
        (add_to_model_code("from einops import rearrange"), ["imports einops, which"]),
        (add_to_model_code("def"), ["no Python"]),
        (lambda repo: (repo / "modeling_fun_transformer.py").write_text(""), ["no class FunTransformerModel"]),
    ],
)
def test_the_check_names_what_would_not_work(repo, damage, words):
    damage(repo)
    problems = check_repo(repo)
    for text in words:
        assert any(text in problem for problem in problems), problems


def test_the_command_prints_the_problems_and_exits_with_1(folder, repo, capsys):
    assert cli.main(["check-repo", str(repo)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["check-repo", str(folder)]) == 1
    assert "README.md is missing" in capsys.readouterr().out
    assert cli.main(["check-repo", str(folder / "nowhere" / "else")]) == 2


# ── with the package: no trust ────────────────────────────────────────────────────────────────────────────────────


def test_custom_pipelines_of_ours_are_hidden_and_saved_again(tiny_config, tmp_path):
    """`pipeline()` would otherwise ask for trust, though the task is registered."""
    config = tiny_config(custom_pipelines={"translation": OUR_TASK})
    assert config.custom_pipelines == {}
    config.save_pretrained(tmp_path)
    assert '"pipeline_fun_transformer.TranslationPipeline"' in (tmp_path / "config.json").read_text()
    assert vars(AutoConfig.from_pretrained(tmp_path))["custom_pipelines"] == {"translation": OUR_TASK}
    assert not hasattr(MarianConfig(), "custom_pipelines")


@pytest.mark.parametrize(
    "damaged",
    [["x"], "abc", 5, None, *({"translation": info} for info in ("x", None, 5, {}, {"impl": None}, {"impl": ["a"]}))],
)
def test_damaged_custom_pipelines_hinder_no_model(folder, damaged):
    """The property is read wherever a config is built or printed; what names no code cannot be run."""
    edit_json(folder / "config.json", custom_pipelines=damaged)
    pipe = pipeline("translation", model=str(folder), device="cpu")
    assert pipe.model.config.custom_pipelines == {}
    assert json.loads(pipe.model.config.to_json_string()).get("custom_pipelines") == damaged


def test_custom_pipelines_of_others_still_ask_for_trust(tiny_model, tmp_path):
    model = tiny_model()
    model.config.custom_pipelines = {"translation": {**OUR_TASK, "impl": "their_pipeline.TranslationPipeline"}}
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("translation", model=str(tmp_path), device="cpu")


# ── round trips over HTTP ─────────────────────────────────────────────────────────────────────────────────────────

PUSH = """
import json, os, sys, urllib.request
from fun_transformer import cli
from fun_transformer.hub import check_repo, push_model_repo
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

old, new, marian, token = sys.argv[1:]

def control(**attributes):
    request = urllib.request.Request(os.environ["HF_ENDPOINT"] + "/control", json.dumps(attributes).encode())
    urllib.request.urlopen(request).close()

def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error)]

found = {"old": push_model_repo(old, "me/cat", token=token, metadata={"license": "mit"}).oid}
control(lfs=[".safetensors"])
found["new"] = push_model_repo(new, "me/cat", token=token, metadata={"license": "mit"}).oid
found["same"] = push_model_repo(new, "me/cat", token=token, metadata={"license": "mit"}).oid
found["no token"] = error_of(push_model_repo, new, "me/other", token=False)
os.environ["HF_TOKEN"] = token
found["private"] = cli.main(["push", new, "me/secret", "--private", "--language", "zh", "en"])
push_model_repo(marian, "me/marian")
for auto_class in (AutoModelForSeq2SeqLM, AutoTokenizer):
    auto_class.from_pretrained(new).push_to_hub("me/plain")
found["problems"] = {name: check_repo(f"me/{name}") for name in ("cat", "secret", "marian", "plain", "damaged")}
control(die_at="/api/models/me/cat/commit/main", lfs=[])
found["regular"] = error_of(push_model_repo, old, "me/cat", token=token)
found["gone"] = error_of(push_model_repo, old, "me/cat", token=token)
print(json.dumps(found))
"""

PULL = """
import json, sys
package, old, token, saved = sys.argv[1] == "package", *sys.argv[2:]
if package:
    import fun_transformer
else:
    sys.modules["fun_transformer"] = None
import torch, transformers
from transformers import AutoModelForSeq2SeqLM, pipeline

trust = {} if package else {"trust_remote_code": True}

def logits(name, **kwargs):
    model = AutoModelForSeq2SeqLM.from_pretrained(name, **trust, **kwargs).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(SOURCE), decoder_input_ids=torch.tensor(TARGET)).logits.tolist()

def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error)]

pipe = pipeline("translation", model="me/cat", device="cpu", **trust)
found = {"texts": [record["translation_text"] for record in pipe(TEXTS)], "classes": {}}
for task in ("summarization", "text2text-generation"):
    found[task] = pipeline(task, model="me/cat", device="cpu", **trust)(TEXTS[0])
for name in vars(pipe.model.config)["auto_map"]:
    thing = getattr(transformers, name).from_pretrained("me/cat", **trust)
    cls = thing if isinstance(thing, type) else type(thing)
    found["classes"][name] = [cls.__module__.split(".")[0], cls.__name__]
found["new"], found["old"] = logits("me/cat"), logits("me/cat", revision=old)
found["private, no token"] = error_of(logits, "me/secret", token=False)  # first: a cached file needs no token
found["private"] = logits("me/secret", token=token)
found["marian"] = pipeline("translation", model="me/marian", device="cpu", **trust)(TEXTS[0])
if package:
    found["plain"] = logits("me/plain")
    found["trusted texts"] = pipeline("translation", model="me/cat", device="cpu", trust_remote_code=True)(TEXTS)
else:
    found["no trust"] = error_of(AutoModelForSeq2SeqLM.from_pretrained, "me/cat", trust_remote_code=False)
pipe.save_pretrained(saved)
found["saved"] = logits(saved)
again = pipeline("translation", model=saved, device="cpu", **trust)
found["saved texts"] = [record["translation_text"] for record in again(TEXTS)]
print(json.dumps(found))
"""


def run_child(strangers, hub, cache, script, *arguments):
    """Runs a script against the server, with an empty cache, outside the checkout; gives the JSON it prints last."""
    cache.mkdir()
    constants = f"TEXTS, SOURCE, TARGET = {TEXTS!r}, {SOURCE!r}, {TARGET!r}\n"
    output = strangers.python("-c", constants + script, *arguments, cwd=cache, **hub.environment(cache))
    return json.loads(output.splitlines()[-1])


HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1 << 18], "data_offsets": [0, 1 << 20]}}).encode()
DAMAGED = {
    "config.json": b"{}",
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes((1 << 20) - 4),
    "README.md": b"# A\n" + TOKEN_TEXT.encode(),
    "logs/.env": b"x",
    "training_args.bin": b"x",
}


@pytest.fixture(scope="module")
def world(strangers, tmp_path_factory):
    """Two versions of a model pushed over HTTP, a private one, and an upload during which the server died."""
    tmp_path = tmp_path_factory.mktemp("hub")
    logits = {
        "old": save_model(tmp_path / "old", seed=1, max_shard_size="10KB"),
        "new": save_model(tmp_path / "new", seed=2),
    }
    save_marian(tmp_path / "marian")
    folders = [tmp_path / name for name in ("old", "new", "marian")]
    hub = HubServer()
    hub.repos["me/damaged"] = Repo()
    hub.repos["me/damaged"].commit(DAMAGED)
    with hub:
        found = run_child(strangers, hub, tmp_path / "1", PUSH, *folders, TOKEN)
    hub.die_at = None
    with hub:
        yield {"hub": hub, "logits": logits, "pushed": found, "tmp_path": tmp_path}


@pytest.mark.slow
def test_each_push_is_one_commit_and_leaves_no_stale_weights(world):
    (_, first), (old, old_files), (new, new_files) = world["hub"].repos["me/cat"].commits
    assert set(first) == {".gitattributes"}
    assert (old, new) == (world["pushed"]["old"], world["pushed"]["new"])
    assert world["pushed"]["same"] == new  # nothing changed, so nothing was committed
    assert any(name.startswith("model-00001-of") for name in old_files)
    assert [name for name in new_files if "safetensors" in name] == ["model.safetensors"]
    for name in ("model.safetensors", "generation_config.json", "tokenizer.json"):
        assert new_files[name] == (world["tmp_path"] / "new" / name).read_bytes()
    assert yaml.safe_load(new_files["README.md"].decode().split("---")[1])["license"] == "mit"
    problems = world["pushed"]["problems"]
    assert problems["cat"] == problems["secret"] == problems["marian"] == []
    assert "AutoModelForSeq2SeqLM" in " ".join(problems["plain"])  # model.push_to_hub publishes no code


@pytest.mark.slow
def test_the_check_of_a_repo_on_the_hub_reads_headers_of_weights_and_finds_secrets(world):
    problems = " ".join(world["pushed"]["problems"]["damaged"])
    size = len(DAMAGED["model.safetensors"])
    for words in (
        f"has {size:,} bytes, where its header says {size + 4:,}",
        "logs/.env has",
        "README.md, line 2, has",
    ):
        assert words in problems
    assert "training_args.bin is a pickle" in problems
    assert sum(sent for path, sent in world["hub"].sent.items() if path.startswith("/me/damaged/")) < 100_000


@pytest.mark.slow
def test_large_files_go_by_the_lfs_protocol(world):
    weights = (world["tmp_path"] / "new" / "model.safetensors").read_bytes()
    assert weights in world["hub"].objects.values()
    assert ("POST", "/me/cat.git/info/lfs/objects/batch") in world["hub"].requests


@pytest.mark.slow
def test_a_server_that_dies_leaves_the_repo_as_it_was(world):
    for name, words in (("regular", "me/cat is as it was"), ("gone", "me/cat is as it was")):
        kind, message = world["pushed"][name]
        assert kind == "ConnectionError" and words in message
    assert len(world["hub"].repos["me/cat"].commits) == 3


@pytest.mark.slow
def test_nothing_is_published_without_a_token(world):
    assert "401" in world["pushed"]["no token"][1]
    assert "me/other" not in world["hub"].repos
    assert world["pushed"]["private"] == 0 and world["hub"].repos["me/secret"].private


@pytest.mark.slow
@pytest.mark.parametrize("installed", ["package", "repo"])
def test_the_same_line_works_with_the_package_and_without_it(world, strangers, installed):
    """`pipeline("translation", model="me/cat")`, without it plus trust_remote_code=True; and every Auto class."""
    tmp_path, logits = world["tmp_path"], world["logits"]
    arguments = installed, world["pushed"]["old"], TOKEN, tmp_path / f"saved-{installed}"
    found = run_child(strangers, world["hub"], tmp_path / installed, PULL, *arguments)

    pipe = pipeline("translation", model=str(tmp_path / "new"), device="cpu")
    texts = [record["translation_text"] for record in pipe(TEXTS)]
    assert found["texts"] == found["saved texts"] == texts
    assert found["summarization"] == [{"summary_text": texts[0]}]
    assert found["text2text-generation"] == [{"generated_text": texts[0]}]
    for name, expected in (("new", "new"), ("old", "old"), ("private", "new"), ("saved", "new")):
        torch.testing.assert_close(torch.tensor(found[name]), logits[expected], rtol=1e-5, atol=1e-5)
    origin = "fun_transformer" if installed == "package" else "transformers_modules"
    configs = [json.loads((tmp_path / "new" / name).read_text()) for name in ("config.json", "tokenizer_config.json")]
    classes = travelling_classes(*configs)
    assert found["classes"] == {name: [origin, cls.__name__] for name, cls in classes.items()}
    assert "me/secret" in found["private, no token"][1]
    marian = pipeline("translation", model=str(tmp_path / "marian"), device="cpu")
    assert found["marian"] == marian(TEXTS[0])
    if installed == "package":
        torch.testing.assert_close(torch.tensor(found["plain"]), logits["new"], rtol=1e-5, atol=1e-5)
        assert [record["translation_text"] for record in found["trusted texts"]] == texts
    else:
        assert "trust_remote_code=True" in found["no trust"][1]
