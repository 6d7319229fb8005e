"""Model repos: what is published, what is missing in one, and the same line with and without the package."""

import pytest
from transformers import AutoConfig, MarianConfig, pipeline

OUR_TASK = {"impl": "pipeline_fun_transformer.TranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"], "type": "text"}


def test_custom_pipelines_of_ours_are_hidden_and_saved_again(tiny_config, tmp_path):
    """`pipeline()` would otherwise ask for trust, though the task is registered."""
    config = tiny_config(custom_pipelines={"translation": OUR_TASK})
    assert config.custom_pipelines == {}
    config.save_pretrained(tmp_path)
    assert '"pipeline_fun_transformer.TranslationPipeline"' in (tmp_path / "config.json").read_text()
    assert vars(AutoConfig.from_pretrained(tmp_path))["custom_pipelines"] == {"translation": OUR_TASK}
    assert not hasattr(MarianConfig(), "custom_pipelines")


def test_custom_pipelines_of_others_still_ask_for_trust(tiny_model, tmp_path):
    model = tiny_model()
    model.config.custom_pipelines = {"translation": {**OUR_TASK, "impl": "their_pipeline.TranslationPipeline"}}
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("translation", model=str(tmp_path), device="cpu")
