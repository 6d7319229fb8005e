"""Every objective trains by recipe only; its labels sit where they should; its model works in its pipeline."""

import json
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from forked_runs import write_digits_recipe
from transformers import AutoConfig, pipeline

from fun_transformer.training.loop import TrainingLoop
from fun_transformer.training.metrics import label_scores, tag_scores
from fun_transformer.training.objectives import scheduled_sampling_loss
from fun_transformer.training.recipe.arguments import TrainingArguments
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.tables import OBJECTIVES
from fun_transformer.training.train import train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
ROWS = {
    "sentiment-zh": [
        {"text_a": "喜欢，我喜欢这本书", "label": "1"},
        {"text_a": "讨厌，我讨厌这本书", "label": "0"},
    ],
    "chunking-en": [
        {"words": "He reads books .", "tags": "B-NP B-VP B-NP O"},
        {"words": "It rains", "tags": "B-NP B-VP"},
    ],
}
SMALL = [
    *("--model.d_model", "16", "--model.encoder_ffn_dim", "16", "--model.decoder_ffn_dim", "16"),
    *("--training.max_steps", "2", "--training.eval_steps", "2", "--training.precision", "fp32"),
    *("--data.max_rows", "40", "--tokenizer.min_frequency", "1"),
]


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def rows_of(name: str, folder: Path) -> list[str]:
    """Options that put a small file in the place of a recipe's data."""
    if name not in ROWS:
        return []
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS[name] * 12), encoding="utf-8")
    values = {"dataset": path} | dict(zip(("source_column", "target_column"), ROWS[name][0], strict=True))
    splits = ("train", "validation", "test")
    return [f"--data.{split}.{option}={value}" for split in splits for option, value in values.items()]


@pytest.mark.parametrize(
    ("objective", "library"), [("sequence_classification", "sklearn"), ("token_classification", "seqeval")]
)
def test_a_library_that_scores_need_is_missed_before_the_training(monkeypatch, objective, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library} is not installed: pip install 'fun-transformer\[train\]'"):
        OBJECTIVES[objective](DatasetDict(), TrainingArguments())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masked-lm-zh", "causal-lm-en", "denoising-zh-en", "sentiment-zh", "chunking-en"])
def test_the_recipe_trains_two_steps_and_its_model_works_in_its_pipeline(name, tmp_path):
    options = [*SMALL, *rows_of(name, tmp_path), "--output_dir", str(tmp_path / "run")]
    scores = train(parse_arguments([str(HUB_CONFIGS / name / "recipe.yaml"), *options])).scores
    task, text = {
        "masked-lm-zh": ("fill-mask", "你<mask>什么"),
        "causal-lm-en": ("text-generation", "I want"),
        "denoising-zh-en": ("text2text-generation", "I <mask> a book"),
        "sentiment-zh": ("text-classification", "我喜欢这本书"),
        "chunking-en": ("token-classification", "He reads books"),
    }[name]
    assert pipeline(task, model=str(tmp_path / "run" / "model"))(text)
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert f'pipeline("{task}"' in card
    config = AutoConfig.from_pretrained(tmp_path / "run" / "model")
    if name == "sentiment-zh":
        assert config.id2label == {0: "0", 1: "1"}
        assert 0 <= scores["test"]["accuracy"] <= 100
    if name == "chunking-en":
        assert set(config.label2id) == {"B-NP", "B-VP", "O"}
        assert 0 <= scores["test"]["f1"] <= 100
    if "lm" in name or "denoising" in name:
        assert scores["test"]["perplexity"] > 1


@pytest.mark.slow
def test_a_classifier_learns(tmp_path):
    options = [*SMALL, *rows_of("sentiment-zh", tmp_path), "--output_dir", str(tmp_path / "run")]
    options += ["--training.max_steps", "40", "--training.warmup_steps", "5", "--training.learning_rate", "1e-2"]
    scores = train(parse_arguments([str(HUB_CONFIGS / "sentiment-zh" / "recipe.yaml"), *options])).scores
    assert scores["test"]["accuracy"] == 100


def build(name: str, pairs: list[tuple[str, str]], **tokenizer_settings):
    """An objective over rows, and a tokenizer for them."""
    rows = Dataset.from_list([{"source": source, "target": target} for source, target in pairs])
    objective = OBJECTIVES[name](DatasetDict(train=rows), TrainingArguments())
    texts = objective.texts(rows)
    tokenizer = train_tokenizer(**texts, settings=TokenizerSettings(**{"vocab_size": 280, **tokenizer_settings}))
    objective.prepare_tokenizer(tokenizer)
    return objective, tokenizer, objective.encode(rows[:], tokenizer)


def test_the_first_token_of_a_word_carries_its_tag():
    pairs = [("He reckons unbelievably", "B-NP B-VP O")]
    objective, tokenizer, encoded = build("token_classification", pairs)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    labels = encoded["labels"][0]
    assert len(tokens) == len(labels) > 4  # rare words are cut
    tags = [objective.labels[label] for label in labels if label != -100]
    assert tags == ["B-NP", "B-VP", "O"]
    assert all(token.startswith("▁") for token, label in zip(tokens, labels, strict=True) if label != -100)
    assert labels[-1] == -100  # </s>


def test_words_without_tags_are_refused():
    with pytest.raises(ValueError, match="2 words and 1 tags"):
        build("token_classification", [("He reckons", "B-NP"), ("It is", "B-NP B-VP")])


def test_masking_hides_only_real_tokens_and_asks_only_for_them():
    pairs = [("one two three four five six seven eight " * 20, "-"), ("one two", "-")]
    objective, tokenizer, encoded = build("masked_lm", pairs, type="word")
    rows = [{"input_ids": encoded["input_ids"][i], "labels": encoded["labels"][i]} for i in range(2)]
    original = torch.tensor(rows[0]["input_ids"])
    batch = objective.collate(rows, tokenizer)
    asked = batch["labels"] != -100
    assert 0.05 < asked[0].float().mean() < 0.3
    assert torch.equal(batch["labels"][0][asked[0]], original[asked[0]])
    assert not (asked & (batch["attention_mask"] == 0)).any()
    assert (batch["input_ids"][0][asked[0]] == tokenizer.mask_token_id).float().mean() > 0.5
    assert torch.equal(batch["input_ids"][0][~asked[0]], original[~asked[0]])


def test_a_language_model_begins_with_s_and_its_prompts_stay_open():
    _, tokenizer, encoded = build("causal_lm", [("one two", "-")], type="word")
    ids = encoded["input_ids"][0]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert encoded["labels"][0] == [-100, *ids[1:]]
    assert tokenizer("one").input_ids[-1] != tokenizer.eos_token_id
    assert tokenizer.decode(ids[2:-1]) == " two"  # what a model adds keeps its space


def test_label_and_tag_scores_are_those_counted_by_hand():
    assert label_scores(["a", "a", "b", "b"], ["a", "b", "b", "b"]) == {
        "accuracy": 75.0,
        "f1": pytest.approx(100 * (2 / 3 + 4 / 5) / 2),
    }
    # Two chunks, one found whole: precision 1 / 2, recall 1 / 2; three tags of four are right.
    scores = tag_scores([["B-NP", "O", "B-VP", "O"]], [["B-NP", "I-NP", "B-VP", "O"]])
    assert scores == {"accuracy": 75.0, "f1": pytest.approx(50.0)}


def splits_of(**targets: list[str]) -> DatasetDict:
    """Splits with these targets."""
    rows = {name: {"source": labels, "target": labels} for name, labels in targets.items()}
    return DatasetDict({name: Dataset.from_dict(columns) for name, columns in rows.items()})


def test_a_label_that_only_the_test_set_has_is_a_mistake_there():
    """As in CoNLL-2000, whose test set has a tag that its training set lacks."""
    objective = OBJECTIVES["token_classification"](
        splits_of(train=["B-NP O"], test=["B-NP I-LST"]), TrainingArguments()
    )
    assert objective.labels == ["B-NP", "I-LST", "O"]


def test_labels_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="no label in common: '0' there, 'bad' here"):
        OBJECTIVES["sequence_classification"](splits_of(train=["good", "bad"], test=["0", "1"]), TrainingArguments())


def test_scheduled_sampling_reads_the_models_own_tokens_and_asks_for_the_true_ones(tiny_model, tiny_batch):
    """With probability 1 every token but the first is the best guess of a first pass."""
    model = tiny_model(dropout=0.0)
    labels = tiny_batch["labels"]
    source = {name: tensor for name, tensor in tiny_batch.items() if name != "labels"}
    true = model.prepare_decoder_input_ids_from_labels(labels)
    guesses = model(**source, decoder_input_ids=true).logits.argmax(-1)
    read = torch.cat([true[:, :1], torch.where(labels[:, 1:] == -100, true[:, 1:], guesses[:, :-1])], dim=1)
    assert (read != true).any()
    expected = model(**source, decoder_input_ids=read, labels=labels, num_items_in_batch=9.0).loss
    loss = scheduled_sampling_loss(model, tiny_batch, 9.0, 1.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_scheduled_sampling_replaces_as_many_tokens_as_it_is_told(tiny_model):
    model = tiny_model(dropout=0.0)
    seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["decoder_input_ids"]), with_kwargs=True)
    batch = {"input_ids": torch.full((50, 3), 7), "labels": torch.full((50, 20), 22)}
    scheduled_sampling_loss(model, batch, 1.0, 0.25)
    first, second = seen
    assert (first[:, 1:] == 22).all() and torch.equal(first[:, 0], second[:, 0])
    assert 0.2 < (second != first)[:, 1:].float().mean() < 0.3


def test_the_probability_of_sampling_rises_with_the_run(tmp_path):
    asked = []

    class Recording(TrainingLoop):
        def compute_gradients(self, taken, items, done):
            asked.append(self.setup.objective.sampling_probability(done))
            return super().compute_gradients(taken, items, done)

    options = [
        "--training.max_steps",
        "4",
        "--training.scheduled_sampling",
        "0.5",
        "--training.metric_for_best_model",
        "loss",
    ]
    train(parse_arguments([str(write_digits_recipe(tmp_path)), *options]), loop=Recording)
    assert asked == pytest.approx([0.0, 0.125, 0.25, 0.375])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "masked_lm"], "scheduled_sampling is for objective: seq2seq"),
        (["--training.r_drop", "5"], "exclude each other"),
    ],
)
def test_scheduled_sampling_is_refused_where_it_has_no_meaning(options, message, tmp_path):
    recipe = str(write_digits_recipe(tmp_path))
    with pytest.raises(ValueError, match=message):
        parse_arguments(
            [recipe, "--training.scheduled_sampling", "0.5", *options, "--training.metric_for_best_model", "loss"]
        )
