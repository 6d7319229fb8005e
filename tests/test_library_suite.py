"""The test-suite of transformers itself, run on our classes: `make test-library`.

The source distribution of transformers holds `tests/test_modeling_common.py` and its neighbours. They are fetched
once, with pip, into `~/.cache/fun_transformer`; `TRANSFORMERS_TESTS=FOLDER` names a `tests` folder that is there
already, such as a git checkout's. The distribution lacks the generation and the export tests.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import types
import unittest
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto

import fun_transformer

pytestmark = [pytest.mark.library, pytest.mark.slow]

# What the distribution leaves out: module -> name -> stand-in.
LEFT_OUT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "output_attentions": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 5,
            "architectures": ["SomeModel"],
            "id2label": {0: "one", 1: "two"},
            "label2id": {"one": 0, "two": 1},
            "problem_type": "regression",
            "is_encoder_decoder": True,
        }
    },
}

# Head -> the table in which transformers' suite looks up what kind of labels it takes.
KINDS = {
    "FunTransformerModel": modeling_auto.MODEL_MAPPING_NAMES,
    "FunTransformerForConditionalGeneration": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "FunTransformerEncoderModel": modeling_auto.MODEL_MAPPING_NAMES,
    "FunTransformerForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "FunTransformerForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "FunTransformerForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "FunTransformerForTokenClassification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "Seq2SeqRNNForConditionalGeneration": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
RNN = "Seq2SeqRNNForConditionalGeneration"
SEQ2SEQ = ("FunTransformerModel", "FunTransformerForConditionalGeneration", RNN)

# What cannot hold for an RNN, and why.
NOT_OF_AN_RNN = {
    "test_attention_outputs": "An RNN has no self-attention.",
    "test_retain_grad_hidden_states_attentions": "An RNN has no self-attention.",
    "test_hidden_states_output": "The kernels of an RNN keep the states between their layers to themselves.",
    "test_model_base_model_prefix": "The RNN has one head, and no model without it.",
    "test_encoder_decoder_loss_no_double_shift": "It differentiates the loss by the logits, which ours does not "
    "build: see test_the_loss_is_that_of_torch_on_labels_shifted_once.",
}


def download(folder: Path) -> None:
    """Unpack the tests of the installed transformers into `folder`; skip where they cannot be had."""
    version = f"transformers=={transformers.__version__}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    try:
        done = subprocess.run(
            [*pip, "--retries", "0", "--timeout", "5", "--dest", str(folder.parent), version],
            capture_output=True,
            text=True,
            timeout=120,
        )
        problem = done.stderr if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = "it takes longer than two minutes"
    if problem:
        pytest.skip(f"The sources of {version} cannot be had: {problem.strip().splitlines()[-1]}")
    archive = next(folder.parent.glob(f"transformers-{transformers.__version__}*.tar.gz"))
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    with tarfile.open(archive) as files:
        tests = [member for member in files.getmembers() if member.name.split("/")[1:2] == ["tests"]]
        files.extractall(partial, tests, filter="data")
    next(partial.glob("*/tests")).rename(folder)
    shutil.rmtree(partial)


@pytest.fixture(scope="module")
def suite():
    """The suite's modules: a namespace with `common`, `configuration` and `training`."""
    pytest.importorskip("parameterized", reason="transformers' tests need it: pip install parameterized")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fun_transformer"
    folder = Path(os.environ.get("TRANSFORMERS_TESTS") or cache / f"transformers-{transformers.__version__}-tests")
    if not folder.is_dir():
        download(folder)
    package = types.ModuleType("transformers_suite")
    package.__path__ = [str(folder)]
    modules = {package.__name__: package}
    for name, content in LEFT_OUT.items():
        if not (folder / f"{name.replace('.', '/')}.py").is_file():
            modules[f"{package.__name__}.{name}"] = types.SimpleNamespace(**content)
    names = {"common": "modeling_common", "configuration": "configuration_common", "training": "training_mixin"}
    with (
        mock.patch.dict(sys.modules, modules),
        mock.patch("transformers.utils.direct_transformers_import", return_value=transformers),
        mock.patch.object(pytest.mark, "_config", None),  # its markers are not declared in our pyproject.toml
    ):
        loaded = {key: importlib.import_module(f"{package.__name__}.test_{name}") for key, name in names.items()}
        with mock.patch.object(loaded["common"], "set_config_for_less_flaky_test", soften_norms):
            yield types.SimpleNamespace(**loaded)


def soften_norms(config: PreTrainedConfig) -> None:
    """Let norms hide no difference; the suite's own function also writes six names that we refuse as misspelt."""
    if hasattr(config, "layer_norm_eps"):
        config.layer_norm_eps = 1.0


class TinyModels:
    """What transformers' suite asks of a model's tester: a tiny configuration, and inputs for it."""

    def __init__(self, head: str, fields: dict):
        self.head, self.config_class = head, getattr(fun_transformer, head).config_class
        self.fields = fields
        self.batch_size, self.seq_length, self.is_training = 5, 7, True
        self.encoder_seq_length = self.decoder_seq_length = self.key_length = self.seq_length
        self.hidden_size, self.num_attention_heads, self.num_hidden_layers = 32, 4, 2
        if head != RNN:
            self.fields = fields | {
                "encoder_attention_heads": self.num_attention_heads,
                "decoder_attention_heads": self.num_attention_heads,
                "encoder_ffn_dim": 24,
                "decoder_ffn_dim": 20,
                "max_position_embeddings": 64,
            }

    def get_config(self) -> PreTrainedConfig:
        config = self.config_class(
            vocab_size=99,
            d_model=self.hidden_size,
            encoder_layers=self.num_hidden_layers,
            decoder_layers=self.num_hidden_layers,
            dropout=0.0,  # with it, the gradients do not vanish as the training test wants them to
            label_smoothing=0.0,  # the suite compares with the plain cross-entropy
            pad_token_id=97,  # the suite's labels are zeros, which are to count
            eos_token_id=98,
            is_encoder_decoder=self.head in SEQ2SEQ,
            **self.fields,
        )
        if self.head != RNN:  # its kernels cannot be split among devices
            config.base_model_tp_plan = {}  # with None, the suite does not look at the plans of the models
        return config

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict]:
        def ids():
            return torch.randint(3, 99, (self.batch_size, self.seq_length))  # no special tokens

        inputs = {"input_ids": ids(), "attention_mask": torch.ones(self.batch_size, self.seq_length, dtype=torch.long)}
        if self.head in SEQ2SEQ:
            inputs |= {"decoder_input_ids": ids(), "decoder_attention_mask": inputs["attention_mask"].clone()}
        return self.get_config(), inputs


def skipped(reason: str):
    """A test that is left out, and why."""

    def test(self):
        self.skipTest(reason)

    return test


def suite_case(suite, head: str, fields: dict) -> type[unittest.TestCase]:
    """Build the TestCase that runs all of the suite on one head and variant."""
    model_class = getattr(fun_transformer, head)
    separate = "decoder_vocab_size" in fields
    mixins = [suite.common.ModelTesterMixin, suite.training.TrainingTesterMixin]
    if model_class.can_generate():
        mixins.append(suite.common.GenerationTesterMixin)

    class SuiteCase(*mixins, unittest.TestCase):
        all_model_classes = (model_class,)
        is_encoder_decoder = head in SEQ2SEQ
        test_resize_embeddings = not (
            separate and head in SEQ2SEQ
        )  # refused: it is not clear which of the two is meant
        test_can_init_all_missing_weights_before_2023 = True
        training_overfit_learning_rate = 3e-3
        if fields.get("attention_weights") == "relu":
            training_grad_norm_reduction_threshold = 0.5  # of 0.9: its gradient jumps where a score crosses 0
        model_tester = None

        def setUp(self):
            transformers.set_seed(0)
            self.model_tester = TinyModels(head, fields)

        def test_config(self):
            properties = ["hidden_size", "num_hidden_layers"] + ["num_attention_heads"] * (head != RNN)
            config_class = model_class.config_class
            suite.configuration.ConfigTester(
                self, config_class=config_class, common_properties=properties, d_model=32
            ).run_common_tests()

        def _create_text_training_batch(self, **sizes):
            """Labels of the head's kind, where they are not the text itself."""
            batch = super()._create_text_training_batch(**sizes)
            if head in SEQ2SEQ:  # the suite generates the rest of the text from a source that is its first token
                batch["attention_mask"] = (
                    (torch.arange(batch["input_ids"].shape[1]) == 0).long().expand_as(batch["input_ids"])
                )
                batch["labels"] = batch["input_ids"].roll(-1, dims=-1)
            elif head == "FunTransformerForTokenClassification":
                batch["labels"] = batch["labels"] % 2
            elif head == "FunTransformerForSequenceClassification":
                batch["labels"] = batch["labels"][:, 0] % 2
            return batch

        if head == "FunTransformerForConditionalGeneration":
            test_encoder_decoder_loss_no_double_shift = skipped(
                "It differentiates the loss by the logits, which ours does not build: see "
                "test_the_loss_reads_labels_without_a_second_shift."
            )
        if "decoder_layer_types" in fields:
            test_attention_outputs = skipped("It wants weights of all layers.")
            test_retain_grad_hidden_states_attentions = skipped("It wants weights of all layers.")
        if KINDS[head] is modeling_auto.MODEL_MAPPING_NAMES:
            test_training_overfit = skipped("A model without a head has no loss.")
        if head == "FunTransformerModel" and separate:
            test_inputs_embeds_matches_input_ids = skipped("It embeds the target with the source's embedding.")
        if head == "FunTransformerForSequenceClassification":
            test_load_with_mismatched_shapes = skipped(
                "It loads the classifier as AutoModel, which is encoder and decoder, and gives no target."
            )

    for name, reason in NOT_OF_AN_RNN.items() if head == RNN else ():
        setattr(SuiteCase, name, skipped(reason))
    return SuiteCase


SEPARATE = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 103}
CASES = [
    pytest.param(head, {"position_embedding_type": positions, "norm_position": norm, **vocabularies}, id=name)
    for head in KINDS
    if head != RNN
    for positions in ("sinusoidal", "learned")
    for norm in ("post", "pre")
    for vocabularies, name in (({}, f"{head}-{positions}-{norm}"), (SEPARATE, f"{head}-{positions}-{norm}-separate"))
    if head in SEQ2SEQ or not vocabularies
]
MIXED = {
    "encoder_layer_types": ["conv", "sliding_attention"],
    "decoder_layer_types": ["linear_attention", "sliding_attention"],
    "sliding_window": 3,
}
RECURRENT = {"encoder_layer_types": ["linear_attention", "conv"], "decoder_layer_types": ["conv", "linear_attention"]}
ROTARY = {"position_embedding_type": "rotary", "norm_position": "pre"}
RELATIVE = {"position_embedding_type": "relative", "encoder_layer_types": ["full_attention", "sliding_attention"]}
RELATIVE["sliding_window"] = 3
CASES += [
    pytest.param(head, fields, id=f"{head}-{name}")
    for head in ("FunTransformerForConditionalGeneration", "FunTransformerForCausalLM")
    for fields, name in ((MIXED, "mixed"), (RECURRENT, "recurrent"), (ROTARY, "rotary"), (RELATIVE, "relative"))
]
CASES += [
    pytest.param(RNN, {"attention_score": score, "cell": cell, **fields}, id=f"{RNN}-{score}-{name}")
    for score, cell, fields, name in (
        ("none", "gru", {}, "gru"),
        ("additive", "lstm", {}, "lstm"),
        ("dot", "gru", {"attention_weights": "hard"}, "hard"),
        ("general", "lstm", {"attention_weights": "relu", "attention_window": 2, **SEPARATE}, "relu-local-separate"),
    )
]

# Every reason to skip that is right for our models: what the machine lacks, and what they do not have or are not.
RIGHT_REASONS = [
    "test requires (multiple )?accelerator|test requires (MPS|Flash Attention|deepspeed|the kernels library)",
    "test is slow",  # test_torch_compile_for_training: Inductor takes minutes on a CPU
    "composite|subconfig|sparse experts|output_router_logits|grouped_mm|RoPE|base_model_class",
    "sliding window|position embeddings|_keep_in_fp32_modules|No conversion found",
    "does not support SDPA",  # only asked of composite models
    "No (sequence-to-sequence|decoder-only) language modeling head",
    "does not propagate hidden states correctly or uses another name",  # encoder_hidden_states, decoder_hidden_states
    "`test_resize_embeddings`|test_resize_embeddings is set to `False`",
    *("It differentiates the loss", "A model without a head", "It embeds the target", "It loads the classifier"),
    "It wants weights of all layers",
]
# No SDPA, no checkpointing, no plan to split it; none of the library's hooks records outputs; no model without a head.
RIGHT_REASONS_OF_AN_RNN = [
    *NOT_OF_AN_RNN.values(),
    "Parts of this model don't support sdpa|No model with a differentiable loss was available|not have a TP plan",
    "Cannot capture hidden states|No usage of the `capture_outputs` decorator|Seq2SeqRNNConfig not in MODEL_MAPPING",
]


@pytest.mark.parametrize(("head", "fields"), CASES)
def test_the_suite_of_transformers_passes(head, fields, suite, capsys):
    result = unittest.TestResult()
    model_type = getattr(fun_transformer, head).config_class.model_type
    with mock.patch.dict(KINDS[head], {model_type: head}):
        unittest.defaultTestLoader.loadTestsFromTestCase(suite_case(suite, head, fields)).run(result)
    failed, skipped = result.failures + result.errors, result.skipped
    passed = result.testsRun - len(failed) - len(skipped)
    variant = " ".join(str(value) for value in fields.values())
    with capsys.disabled():
        print(f"\n{head} {variant}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert not failed, "\n".join(f"{test}\n{trace}" for test, trace in failed)
    right = "|".join(RIGHT_REASONS + RIGHT_REASONS_OF_AN_RNN * (head == RNN))
    assert not {f"{test}: {reason}" for test, reason in skipped if not re.search(right, reason)}
    assert passed > (60 if head == RNN else 90)
