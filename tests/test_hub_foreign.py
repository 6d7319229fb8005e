"""The way out of a fine-tuning: folders of other families and adapters are published as what they are, and load."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_models import WORDS, save_tiny
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from fun_transformer import cli
from fun_transformer.hub import TrainingFacts, check_repo, push_model_repo, training_card
from fun_transformer.hub.card import complete_card, read_header
from fun_transformer.hub.push import model_contents, prepare_files
from fun_transformer.hub.usage import BASE_PLACEHOLDER, Loading, plain_code
from fun_transformer.training import parse_arguments, train
from fun_transformer.training.evaluate import main as evaluate
from fun_transformer.training.model.averaging import main as average

ROOT = Path(__file__).parents[1]
SEQ2SEQ = "AutoModelForSeq2SeqLM"
QUICK = [
    *("--training.max_steps", "2", "--training.eval_steps", "1", "--training.save_steps", "1"),
    *("--training.batch_tokens", "128", "--training.precision", "fp32", "--training.learning_rate", "1e-2"),
    *("--generation.max_new_tokens", "8", "--generation.metrics", "[bleu, chrf]", "--training.report_to", "[]"),
]


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def fine_tune(family, folder, *options):
    """Train a tiny model of a family for two steps; return the run's folder."""
    base = folder / "base"
    if not base.exists():
        save_tiny(family, base)
    numbers = torch.randint(0, len(WORDS), (12, 4), generator=torch.Generator().manual_seed(0)).tolist()
    files = []
    for name, step in (("source", 1), ("target", -1)):
        lines = (" ".join(WORDS[number] for number in row[::step]) for row in numbers)
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
        files += [f"--data.{split}.{name}={folder / name}" for split in ("train", "validation")]
    run = folder / f"run-{len(options)}"
    train(parse_arguments(["--model.path", str(base), *files, "--output_dir", str(run), *QUICK, *options]))
    return run


@pytest.fixture(scope="module", params=["marian", "t5"])
def run(request, tmp_path_factory):
    return fine_tune(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of an adapter beside a base of this machine."""
    pytest.importorskip("peft")
    return fine_tune("t5", tmp_path_factory.mktemp("adapter"), "--training.lora.r", "2") / "model"


@pytest.fixture
def published(adapter, tmp_path):
    """An adapter whose base is on the Hub."""
    shutil.copytree(adapter, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="me/base")
    return tmp_path / "adapter"


def code_of(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


# ── whole models ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_another_family_is_published_without_code_of_ours(run):
    folder = run / "model"
    assert check_repo(folder) == []
    files = prepare_files(model_contents(folder), "me/cat", {"license": "mit"})
    assert {name for name, content in files.items() if content != folder / name} == {"README.md"}
    card = files["README.md"].decode()
    first, second = code_of(card)
    assert f'{SEQ2SEQ}.from_pretrained("me/cat")' in first and "model.generate(" in first
    assert "fun_transformer" not in first
    assert second.startswith("import fun_transformer\n") and 'model="me/cat"' in second
    assert "trust_remote_code" not in card and str(run.parent) not in card and "PATH_OR_NAME" not in card
    for lines in (first, second):
        compile(lines, "README.md", "exec")
    again = complete_card(card, "me/cat", Loading(SEQ2SEQ, needs_package=False), {})
    assert again == card


def test_a_folder_without_a_card_gets_one_that_runs(run, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(run / "model", tmp_path / "me" / "cat")
    (folder / "README.md").unlink()
    card = prepare_files(model_contents(folder), "me/cat", {"language": ["zh", "en"]})["README.md"].decode()
    assert read_header(card) == {
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "language": ["zh", "en"],
    }
    monkeypatch.chdir(tmp_path)
    for lines in code_of(card):
        exec(lines, {})
    printed = capsys.readouterr().out.splitlines()
    tokenizer, model = AutoTokenizer.from_pretrained("me/cat"), AutoModelForSeq2SeqLM.from_pretrained("me/cat")
    ids = model.generate(**tokenizer("text", return_tensors="pt"))
    assert printed[0] == tokenizer.decode(ids[0], skip_special_tokens=True)
    assert "translation_text" in printed[1]


@pytest.mark.parametrize(("family", "head"), [("bert", "AutoModelForMaskedLM"), ("gpt2", "AutoModelForCausalLM")])
def test_other_heads_are_named_and_get_no_pipeline_of_ours(family, head, tmp_path):
    card = prepare_files(model_contents(save_tiny(family, tmp_path)), "me/cat", {})["README.md"].decode()
    assert f'{head}.from_pretrained("me/cat")' in card and "fun_transformer" not in card


def test_pipelines_that_an_earlier_version_named_keep_their_code(run, tmp_path):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    impl = {"impl": "pipeline_fun_transformer.TranslationPipeline", "pt": [SEQ2SEQ], "type": "text"}
    edit_json(folder / "config.json", custom_pipelines={"translation": impl})
    assert "pipeline_fun_transformer.py" in prepare_files(model_contents(folder), "me/cat", {})


def test_code_of_others_stays_as_it_is(tmp_path):
    """A family that is not registered here, with its code in the folder."""
    save_tiny("marian", tmp_path)
    names = {"AutoConfig": "their_code.C", SEQ2SEQ: "their_code.MarianMTModel"}
    edit_json(tmp_path / "config.json", model_type="theirs", auto_map=names)
    (tmp_path / "their_code.py").write_text("class C: ...\nclass MarianMTModel: ...\n")
    files = prepare_files(model_contents(tmp_path), "me/cat", {})
    assert files["config.json"] == tmp_path / "config.json" and "their_code.py" in files
    assert f'{SEQ2SEQ}.from_pretrained("me/cat", trust_remote_code=True)' in files["README.md"].decode()
    (tmp_path / "README.md").write_bytes(files["README.md"])
    assert check_repo(tmp_path) == []


@pytest.mark.parametrize("base", ["/srv/base", "~/base", "./base", "a/b/c", "C:\\base"])
def test_a_card_with_a_folder_as_base_model_is_refused(base, run, tmp_path):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    (folder / "README.md").write_text(f"---\nbase_model: {base}\n---\n# A\n")
    assert any("base_model" in problem for problem in check_repo(folder))
    with pytest.raises(ValueError, match="base_model, no model on the Hub"):
        push_model_repo(folder, "me/cat")


def test_the_card_of_a_training_names_a_base_of_the_hub_and_how_it_is_related():
    whole, part = Loading(SEQ2SEQ, needs_package=False), Loading(SEQ2SEQ, needs_package=False, base="a/base")
    for loading, relation, library in ((whole, "finetune", "transformers"), (part, "adapter", "peft")):
        facts = TrainingFacts("a.txt", "run", {}, base_model="a/base", base_is_on_hub=True, loading=loading)
        data = ModelCard(training_card("mine", "translation", facts)).data
        assert (data.base_model, data.base_model_relation, data.library_name) == ("a/base", relation, library)


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_adapter_is_published_with_its_base(published):
    assert check_repo(published) == []
    files = prepare_files(model_contents(published), "me/cat", {})
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    card = files["README.md"].decode()
    header = read_header(card)
    assert (header["base_model"], header["base_model_relation"]) == ("me/base", "adapter")
    assert header["library_name"] == "peft"
    assert "PATH_OR_NAME" not in card and 'PeftModel.from_pretrained(base, "me/cat")' in card


@pytest.mark.parametrize("has_card", [True, False])
def test_the_lines_on_the_card_of_an_adapter_run(has_card, published, adapter, tmp_path, capsys, monkeypatch):
    if not has_card:
        (published / "README.md").unlink()
    card = prepare_files(model_contents(published), "me/cat", {})["README.md"].decode()
    shutil.copytree(adapter.parents[1] / "base", tmp_path / "me" / "base")
    shutil.copytree(published, tmp_path / "me" / "cat")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code_of(card)[0], names)
    expected = AutoModelForSeq2SeqLM.from_pretrained(adapter).eval()  # the same by transformers' own way
    ids = expected.generate(**names["inputs"], generation_config=names["config"])
    assert names["model"].generate(**names["inputs"], generation_config=names["config"]).tolist() == ids.tolist()
    assert capsys.readouterr().out.strip() == names["tokenizer"].decode(ids[0], skip_special_tokens=True).strip()


def cut_weights(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, "adapter_model.safetensors is damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "does not name the model"),
        (lambda folder: (folder / "adapter_config.json").write_text("["), "adapter_config.json is no JSON"),
        (
            lambda folder: edit_json(folder / "adapter_config.json", base_model_name_or_path="/srv/base"),
            "Write the name that the model has on the Hub",
        ),
    ],
)
def test_what_would_not_work_of_an_adapter_is_told_and_refused(damage, words, published):
    damage(published)
    assert any(words in problem for problem in check_repo(published)), check_repo(published)
    with pytest.raises(ValueError, match=words):
        push_model_repo(published, "me/cat")


def test_the_card_of_an_adapter_hides_the_folder_of_its_base(adapter):
    card = (adapter / "README.md").read_text()
    assert str(adapter.parents[1]) not in card and BASE_PLACEHOLDER in card
    own = plain_code("me/cat", Loading(SEQ2SEQ, base="me/base"))
    assert own.startswith("import fun_transformer\n")


def test_a_run_with_an_adapter_is_evaluated_by_its_folder(adapter, tmp_path, capsys):
    assert evaluate([str(adapter.parent), "--output", str(tmp_path / "scores.json")]) == 0
    lines = map(json.loads, (adapter.parent / "metrics.jsonl").read_text().splitlines())
    last = [line for line in lines if line["split"] == "validation"][-1]
    assert f"loss {last['loss']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["", "model"])
def test_an_adapter_is_evaluated_on_data_of_any_file(place, adapter, tmp_path, capsys):
    lines = zip(*((adapter.parents[1] / name).read_text().splitlines() for name in ("source", "target")), strict=True)
    (tmp_path / "data.tsv").write_text("source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in lines))
    words = ["evaluate", str(adapter.parent / place), str(tmp_path / "data.tsv"), "--num-beams", "1"]
    assert cli.main(words) == 0, capsys.readouterr().err
    logged = map(json.loads, (adapter.parent / "metrics.jsonl").read_text().splitlines())
    last = [line["chrf"] for line in logged if "chrf" in line][-1]
    assert f" {last:.2f}\n" in capsys.readouterr().out


# ── means ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_of_other_families_are_averaged_with_the_tokenizer_of_their_run(run, tmp_path):
    folders = [run / "models" / "step-1", run / "models" / "step-2"]
    assert average([*map(str, folders), "--output_dir", str(tmp_path / "mean")]) == 0
    first, second, mean = (load_file(folder / "model.safetensors") for folder in (*folders, tmp_path / "mean"))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "mean")
    assert AutoTokenizer.from_pretrained(tmp_path / "mean").tokenize("w1")


def test_what_has_no_mean_is_refused_in_a_sentence(run, adapter, tmp_path, capsys):
    other = save_tiny("bart", tmp_path / "bart")
    unknown = shutil.copytree(other, tmp_path / "unknown")
    edit_json(unknown / "config.json", model_type="theirs", architectures=["Theirs"])
    for folders, words in (
        ([run / "model", other], "several classes"),
        ([adapter, adapter], "holds an adapter"),
        ([unknown, unknown], "The code of Theirs is neither"),
    ):
        assert average([*map(str, folders), "--output_dir", str(tmp_path / "mean")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "mean").exists()


# ── a new user ───────────────────────────────────────────────────────────────────────────────────────────────────

PUSH = """
import json, sys
from fun_transformer import cli
from fun_transformer.hub import check_repo

found = {}
for folder, name in zip(sys.argv[1::2], sys.argv[2::2]):
    found[name] = [cli.main(["push", folder, name, "--license", "mit"]), check_repo(name)]
print(json.dumps(found))
"""
# What a card says, run where the package is not.
PULL = """
import contextlib, io, json, sys
sys.modules["fun_transformer"] = None
import re
from huggingface_hub import hf_hub_download

found = {}
for name in sys.argv[1:]:
    card = open(hf_hub_download(name, "README.md"), encoding="utf-8").read()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(re.search(r"```python\\n(.*?)```", card, re.DOTALL)[1], {})
    found[name] = printed.getvalue()
print(json.dumps(found))
"""


def run_child(strangers, hub, cache, script, *arguments):
    """Run a script against the server, outside the checkout; return the JSON that it prints last."""
    cache.mkdir()
    output = strangers.python("-c", script, *arguments, cwd=cache, HF_TOKEN=TOKEN, **hub.environment(cache))
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_what_was_pushed_is_used_by_people_without_the_package(run, published, adapter, strangers, tmp_path):
    folders = {"me/cat": run / "model", "me/base": adapter.parents[1] / "base", "me/adapter": published}
    (adapter.parents[1] / "base" / "README.md").unlink(missing_ok=True)
    with HubServer() as hub:
        words = [word for name, folder in folders.items() for word in (folder, name)]
        pushed = run_child(strangers, hub, tmp_path / "push", PUSH, *words)
        assert pushed == {name: [0, []] for name in folders}
        assert not any(file.endswith(".py") for repo in hub.repos.values() for file in repo.commits[-1][1])
        found = run_child(strangers, hub, tmp_path / "pull", PULL, *folders)
    text = json.loads((run / "predictions.jsonl").read_text().splitlines()[6])["source"]
    pipe = pipeline("text2text-generation", model=str(run / "model"), device="cpu")
    config = pipe.model.generation_config
    ids = pipe.model.generate(**pipe.tokenizer(text, return_tensors="pt"), generation_config=config)
    assert found["me/cat"].strip() == pipe.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    assert set(found) == set(folders)
