"""Other people's metrics and objectives: the files of docs/plugins.md train, and mistakes in them are explained."""

import pickle
import re
import sys
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe

from fun_transformer.cli import main as cli
from fun_transformer.hub import check_repo
from fun_transformer.mixers import MIXERS
from fun_transformer.plugins import load_plugins
from fun_transformer.positions import POSITIONS
from fun_transformer.training import ReferenceMetric, RunArguments, SplitArguments, parse_arguments, train
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.tables import METRICS, OBJECTIVES, register_metric, register_objective
from fun_transformer.training.train import main

DOCS = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS, flags=re.DOTALL))
DATA = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]
SHORT = ["--training.max_steps", "2", "--training.eval_steps", "2", "--generation.eval_rows", "4"]


def forget_modules():
    """Let plug-ins run again."""
    for name in [name for name in sys.modules if name.startswith("fun_transformer_plugin_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def tables_as_before():
    """Forget what a test registers, and accelerate's state."""
    tables = [(table, dict(table)) for table in (METRICS, OBJECTIVES, POSITIONS, MIXERS)]
    threads = torch.get_num_threads()
    yield
    for table, before in tables:
        table.clear()
        table.update(before)
    forget_modules()
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


def forget_parts():
    """Let positions and mixers be as if no plug-in had been run."""
    for table in (POSITIONS, MIXERS):
        for name in [name for name, part in table.items() if not part.__module__.startswith("fun_transformer.")]:
            del table[name]


def write(folder, name, text=None):
    """Path of a plug-in: a file of the docs, or one with the given text."""
    path = folder / name
    path.write_text(FILES[name] if text is None else text, encoding="utf-8")
    return path


def test_the_docs_show_whole_files():
    assert FILES.keys() == {"length_ratio.py", "focal.py", "alibi.py", "moving_average.py"}
    assert all(len(text.strip().splitlines()) <= 32 for text in FILES.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("alibi.py", ["--model.position_embedding_type", "alibi", "--training.packing", "32"]),
        ("moving_average.py", ["--model.encoder_layer_types", "[moving_average]"]),
        ("moving_average.py", ["--model.decoder_layer_types", "[moving_average]"]),
    ],
)
def test_a_part_of_a_model_of_the_docs_trains_and_is_named_in_the_config(file, options, tmp_path):
    recipe, plugin = write_digits_recipe(tmp_path), write(tmp_path, file)
    result = train(parse_arguments([str(recipe), "--plugin", str(plugin), *options, *SHORT]))
    assert result.scores["test"]["loss"] > 0
    assert Path(file).stem in (result.folder / "model" / "config.json").read_text(encoding="utf-8")
    assert any(Path(file).stem in problem for problem in check_repo(result.folder / "model"))
    command = ["translate", "--model", str(result.folder / "model"), "12"]
    assert cli([*command, "--plugin", str(plugin)]) == 0
    forget_parts()
    assert cli(command) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.position_embedding_type", "alibbi"], "alibi"),
        (["--model.encoder_layer_types", "[moving_averag]"], "moving_average"),
    ],
)
def test_a_misspelt_part_of_a_model_gets_the_nearest_name(options, message, tmp_path, capsys):
    recipe = write_digits_recipe(tmp_path)
    plugins = ",".join(str(write(tmp_path, file)) for file in ("alibi.py", "moving_average.py"))
    assert main([str(recipe), "--plugin", plugins, *options]) == 2
    assert f"Did you mean {message}" in capsys.readouterr().err.replace("'", "")


@pytest.mark.slow
def test_a_metric_of_the_docs_chooses_the_best_model_and_is_in_the_card(tmp_path):
    recipe, plugin = write_digits_recipe(tmp_path), write(tmp_path, "length_ratio.py")
    options = ["--generation.metrics", "chrf,length_ratio", "--training.metric_for_best_model", "length_ratio"]
    result = train(parse_arguments([str(recipe), "--plugin", str(plugin), *options, *SHORT]))
    assert {"chrf", "length_ratio"} <= result.scores["test"].keys()
    assert "length ratio (%)" in (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    written = yaml.safe_load((result.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert written["plugins"] == [str(plugin)]
    METRICS.pop("length_ratio")
    forget_modules()  # as in a new process
    longer = ["--training.max_steps", "4", "--resume"]
    result = train(parse_arguments([str(result.folder / "recipe.yaml"), *longer, "--output_dir", str(result.folder)]))
    assert "length_ratio" in result.scores["test"]


@pytest.mark.parametrize("packing", ["null", "32"])
def test_an_objective_of_the_docs_trains_with_its_own_loss(packing, tmp_path):
    recipe, plugin = write_digits_recipe(tmp_path), write(tmp_path, "focal.py")
    arguments = parse_arguments(
        [str(recipe), f"--plugin={plugin}", "--objective=focal_seq2seq", f"--training.packing={packing}", *SHORT]
    )
    assert train(arguments).scores["test"]["loss"] > 0


def test_the_loss_of_the_docs_is_the_cross_entropy_where_nothing_is_certain(tmp_path):
    load_plugins([str(write(tmp_path, "focal.py"))])
    loss = sys.modules[OBJECTIVES["focal_seq2seq"].__module__].FocalLoss()
    logits, labels = torch.zeros(1, 3, 10), torch.tensor([[4, 2, -100]])
    assert loss(logits, labels).item() == pytest.approx(2 * 0.9**2 * torch.tensor(10.0).log().item())


def test_a_recipe_names_plugins_relative_to_itself(tmp_path):
    write(tmp_path, "length_ratio.py")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(re.search("```yaml\n(.*?)```", DOCS, flags=re.DOTALL)[1], encoding="utf-8")
    arguments = parse_arguments([str(recipe), *DATA])
    assert arguments.plugins == [str(tmp_path / "length_ratio.py")]
    recipe.write_text(arguments.to_yaml(), encoding="utf-8")
    assert parse_arguments([str(recipe)]) == arguments


def test_plugins_on_the_command_line_may_be_repeated_or_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("length_ratio.py", "focal.py"):
        write(tmp_path, name)
    both = [str(tmp_path / "length_ratio.py"), str(tmp_path / "focal.py")]
    assert parse_arguments(["--plugin", "length_ratio.py", "--plugin=focal.py", *DATA]).plugins == both
    assert parse_arguments(["--plugin", "length_ratio.py, focal.py", *DATA]).plugins == both
    assert {"length_ratio", "focal_seq2seq"} <= METRICS.keys() | OBJECTIVES.keys()


def test_plugins_are_loaded_for_arguments_made_in_python_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "focal.py")
    arguments = RunArguments(objective="focal_seq2seq", plugins=["focal.py"])
    arguments.data.train = SplitArguments(source="a", target="b")
    assert check(arguments).plugins == [str(tmp_path / "focal.py")] and arguments.plugins == ["focal.py"]


def test_a_plugin_runs_once_a_process_unless_it_changes(tmp_path):
    counter = "import sys\nsys.plugin_runs = getattr(sys, 'plugin_runs', 0) + 1\n"
    plugin = write(tmp_path, "counter.py", counter)
    try:
        load_plugins([str(plugin), str(plugin)])
        assert sys.plugin_runs == 1
        load_plugins([str(write(tmp_path, "counter.py", counter + "# changed\n"))])
        assert sys.plugin_runs == 2
    finally:
        del sys.plugin_runs


def encode_batch(batch, objective):
    return {"length": objective.lengths(batch["source"])}


def test_other_processes_find_the_classes_of_a_plugin(tmp_path):
    text = (
        FILES["focal.py"] + "\n    def lengths(self, sources):\n        return [len(source) for source in sources]\n"
    )
    load_plugins([str(write(tmp_path, "focal.py", text))])
    objective = OBJECTIVES["focal_seq2seq"](datasets.DatasetDict(), RunArguments().training)
    assert type(pickle.loads(pickle.dumps(objective))) is type(objective)
    rows = datasets.Dataset.from_dict({"source": ["a", "bc", "def", ""]})
    mapped = rows.map(encode_batch, batched=True, num_proc=2, fn_kwargs={"objective": objective})
    assert mapped["length"] == [1, 2, 3, 0]


def test_rows_that_an_older_plugin_encoded_are_not_taken_for_those_of_a_newer_one(tmp_path):
    digests = []
    for line in ("", "# changed\n"):
        load_plugins([str(write(tmp_path, "focal.py", FILES["focal.py"] + line))])
        objective = OBJECTIVES["focal_seq2seq"](datasets.DatasetDict(), RunArguments().training)
        digests.append(datasets.fingerprint.Hasher.hash(objective.encode))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\ny = 1 / 0\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "bad.py, line 1: SyntaxError"),
        ("\n\nimport no_such_module\n", "bad.py, line 3: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "from fun_transformer.training import *\n@register_metric\nclass M(ReferenceMetric):\n    title = ''\n",
            "M has no name. The class of a metric says it: `name = ...`",
        ),
    ],
)
def test_an_error_in_a_plugin_is_told_with_its_file_and_line(text, message, tmp_path):
    plugin = write(tmp_path, "bad.py", text)
    for _ in range(2):  # a file that failed is not taken for one that was loaded
        with pytest.raises(ValueError, match=re.escape(message)):
            parse_arguments(["--plugin", str(plugin), *DATA])


def test_a_plugin_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.py cannot be read: No such file"):
        parse_arguments(["--plugin", str(tmp_path / "nowhere.py"), *DATA])
    with pytest.raises(ValueError, match=r"must end in \.py"):
        parse_arguments(["--plugin", str(write(tmp_path, "plugin.txt", "")), *DATA])


def test_names_are_held_against_the_tables(tmp_path):
    options = ["--plugin", str(write(tmp_path, "length_ratio.py")), *DATA]
    with pytest.raises(ValueError, match="Did you mean length_ratio"):
        parse_arguments([*options, "--generation.metrics", "lenght_ratio"])
    options += ["--generation.metrics", "bleu"]
    with pytest.raises(ValueError, match=r"metric_for_best_model=length_ratio is not measured\. Add it to generation"):
        parse_arguments([*options, "--training.metric_for_best_model", "length_ratio"])
    with pytest.raises(ValueError, match=r"There is no metric 'lenght_ratio'\. .* Did you mean length_ratio"):
        METRICS["lenght_ratio"]


def test_a_score_that_chooses_the_best_model_must_be_in_the_table(tmp_path):
    method = "\n    @classmethod\n    def measured(cls, generation):\n        return ['certainty']\n"
    plugin = write(tmp_path, "focal.py", FILES["focal.py"] + method)
    options = ["--objective", "focal_seq2seq", "--training.metric_for_best_model", "certainty", *DATA]
    with pytest.raises(ValueError, match="There is no metric 'certainty'"):
        parse_arguments(["--plugin", str(plugin), *options])


def test_a_built_in_name_cannot_be_taken_and_ones_own_can_be_given_again():
    class BLEU(ReferenceMetric):
        name, title = "bleu", "BLEU of mine"

    with pytest.raises(ValueError, match=r"a metric 'bleu' already, fun_transformer\.training\.metrics\.BLEU"):
        register_metric(BLEU)

    def build():
        class Mine(ReferenceMetric):
            name, title = "mine", "mine"

        return Mine

    first, second = register_metric(build()), register_metric(build())
    assert METRICS["mine"] is second is not first


def test_a_class_that_says_too_little_is_refused():
    class Bare:
        name = "bare"

    with pytest.raises(ValueError, match="Bare has no has_targets"):
        register_objective(Bare)
