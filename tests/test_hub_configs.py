"""Every folder of hub_configs: its config builds, its recipe is read, its numbers are the paper's."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

from fun_transformer.training.recipe.reading import parse_arguments

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "hub_configs").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_holds_a_config_a_recipe_and_a_card(folder):
    model_type = "seq2seq_rnn" if folder.name.startswith("rnn-") else "fun_transformer"
    assert AutoConfig.from_pretrained(folder).model_type == model_type
    arguments = parse_arguments([str(folder / "recipe.yaml")])
    if arguments.objective in ("seq2seq", "causal_lm", "denoising"):
        generation = GenerationConfig.from_pretrained(folder)
        assert arguments.generation.num_beams == generation.num_beams
        assert arguments.generation.max_new_tokens == generation.max_new_tokens
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["output_dir"].startswith("runs/")


# Vaswani et al. 2017, Table 3: base, big, and row (C) with d_model 256. The paper rounds, and does not say the exact
# vocabulary ("about 37000"): within five percent.
@pytest.mark.parametrize(
    "name, millions", [("transformer-base", 65), ("transformer-big", 213), ("transformer-small", 28)]
)
def test_sizes_are_those_of_table_3(name, millions):
    folder = next(folder for folder in FOLDERS if folder.name == name)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(folder))
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert parameters == pytest.approx(millions, rel=0.05)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{parameters:.1f} with 37,000 tokens" in card
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 37000
