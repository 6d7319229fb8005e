"""Each private name of another library that we lean on, so that an upgrade that removes it fails here by name.

The second half finds the private names that the package and its tests use, and holds them against the list.
"""

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers import initialization

import fun_transformer

ROOT = Path(__file__).parents[1]

# (the owner's dotted name, or a function that makes or finds the owner; the private name; what it is for)
CONTRACT = [
    # ── transformers: what it asks of a model class ──
    ("transformers.PreTrainedModel", "_auto_class", "whether saved code travels with the model"),
    ("transformers.PreTrainedModel", "_can_compile_fullgraph", "generate() compiles with a static cache"),
    ("transformers.PreTrainedModel", "_can_record_outputs", "hidden states and attention weights of the layers"),
    ("transformers.PreTrainedModel", "_check_and_adjust_attn_implementation", "whether a kernel can run"),
    ("transformers.PreTrainedModel", "_init_weights", "fresh weights"),
    ("transformers.PreTrainedModel", "_is_stateful", "no assisted generation with an RNN"),
    ("transformers.PreTrainedModel", "_keys_to_ignore_on_save", "what a family computes again, which is not trained"),
    ("transformers.PreTrainedModel", "_no_split_modules", "layers stay whole when a model is spread over devices"),
    ("transformers.PreTrainedModel", "_skip_keys_device_placement", "caches stay where they are"),
    ("transformers.PreTrainedModel", "_supports_flash_attn", "attention kernels"),
    ("transformers.PreTrainedModel", "_supports_flex_attn", "attention kernels"),
    ("transformers.PreTrainedModel", "_supports_sdpa", "attention kernels"),
    ("transformers.PreTrainedModel", "_tied_weights_keys", "parameters that share their values"),
    ("transformers.PreTrainedModel", "_tp_plan", "tensor parallelism"),
    ("transformers.generation.GenerationMixin", "_prepare_cache_for_generation", "an RNN's cache, and ours"),
    ("transformers.generation.GenerationMixin", "_maybe_prepare_encoder_kwargs_for_generation", "the fast encoder"),
    ("transformers.generation.GenerationMixin", "_prepare_attention_mask_for_generation", "a picture without a mask"),
    ("transformers.generation.GenerationMixin", "_prepare_model_inputs", "the source, for copying"),
    ("transformers.generation.GenerationMixin", "_beam_search", "the loop of constrained and diverse beam search"),
    ("transformers.generation.GenerationMixin", "_sample", "the loop of greedy search, beside our own"),
    ("transformers.generation.GenerationMixin", "_check_early_stop_heuristic", "when a text's search is over"),
    ("transformers.generation.GenerationMixin", "_get_top_k_continuations", "which continuations it chooses"),
    ("transformers.generation.GenerationMixin", "_get_running_beams_for_next_iteration", "which beams it keeps"),
    ("transformers.generation.GenerationMixin", "_check_early_stop_heuristic", "which groups of beams are done"),
    ("transformers.PreTrainedConfig", "_attn_implementation", "the attention kernel in use"),
    ("transformers.cache_utils.CacheLayerMixin", "_layer_type", "the kind of cache that a mixer's layer has"),
    ("transformers.quantizers.HfQuantizer", "_process_model_before_weight_loading", "layers of 8 bits before loading"),
    ("transformers.quantizers.HfQuantizer", "_process_model_after_weight_loading", "weights in 8 bits after loading"),
    # ── transformers: tokenizers, pipelines, tables ──
    ("transformers.tokenization_utils_tokenizers.TokenizersBackend", "_tokenizer", "the backend of `tokenizers`"),
    ("transformers.tokenization_utils_tokenizers.TokenizersBackend", "_decode", "decoding of the target's side"),
    ("transformers.tokenization_utils_tokenizers.TokenizersBackend", "_add_tokens", "spaces beside added tokens"),
    ("transformers.tokenization_utils_tokenizers.TokenizersBackend", "_save_pretrained", "saving without truncation"),
    ("transformers.tokenization_utils_base.PreTrainedTokenizerBase", "_auto_class", "saved code of the tokenizer"),
    ("transformers.NllbTokenizer", "_build_translation_inputs", "tokenizers of many languages prepare their inputs"),
    ("transformers.Pipeline", "_forward", "a step of a pipeline"),
    ("transformers.Pipeline", "_batch_size", "texts a batch, where the pipeline was made with it"),
    ("transformers.Pipeline", "_num_workers", "processes that read texts, where the pipeline was made with them"),
    ("transformers.Pipeline", "_forward_params", "options given when a pipeline was made (tests)"),
    ("transformers.Pipeline", "_load_feature_extractor", "what a pipeline loads"),
    ("transformers.Pipeline", "_load_image_processor", "what a pipeline loads"),
    ("transformers.Pipeline", "_load_processor", "what a pipeline loads"),
    ("transformers.Pipeline", "_load_tokenizer", "what a pipeline loads"),
    ("transformers.Pipeline", "_load_video_processor", "what a pipeline loads"),
    ("transformers.Pipeline", "_postprocess_params", "parameters given when a pipeline was made"),
    ("transformers.Pipeline", "_preprocess_params", "parameters given when a pipeline was made"),
    ("transformers.Pipeline", "_sanitize_parameters", "parameters of a call"),
    ("transformers.AutoModelForSeq2SeqLM", "_model_mapping", "the classes that are registered for a head"),
    ("transformers.AttentionInterface", "_global_mapping", "the kernels that exist (tests)"),
    ("transformers.CompileConfig", "_compile_all_devices", "compiled generation on CPUs (tests)"),
    ("transformers.pipelines", "REMOVED_TASKS", "translation, summarization and text2text-generation work again"),
    ("transformers.pipelines", "_resolve_deprecated_task", "image-to-text works again"),
    ("transformers.PreTrainedModel", "_keys_to_ignore_on_load_missing", "weights that need not be in a file"),
    ("transformers.PreTrainedModel", "_keys_to_ignore_on_load_unexpected", "weights that may be in a file"),
    ("transformers.integrations.peft.PeftAdapterMixin", "_hf_peft_config_loaded", "a merged model has no adapter"),
    (
        "transformers.models.t5.modeling_t5.T5Attention",
        "_relative_position_bucket",
        "tests: which distances T5 tells apart",
    ),
    # ── torch ──
    ("torch", "_foreach_lerp_", "a running mean of the weights in one call"),
    ("torch.cpu", "_is_avx512_bf16_supported", "whether bf16 is fast"),
    ("torch.cpu", "_is_amx_tile_supported", "whether bf16 is fast"),
    ("torch.cpu", "_is_vnni_supported", "how large the numbers of a product of 8 bits may be"),
    ("torch", "_make_per_channel_quantized_tensor", "weights in 8 bits as a product for few rows reads them"),
    ("torch", "_dynamo", "counts of compiled graphs (tests)"),
    ("torch.utils", "_python_dispatch", "every tensor that is made (tests)"),
    ("torch.nn.modules.module", "_global_forward_hooks", "whether a model computes what its classes say"),
    ("torch.nn.modules.module", "_global_forward_pre_hooks", "whether a model computes what its classes say"),
    (nn.Module, "_compiled_call_impl", "whether a model computes what its classes say"),
    (nn.Module, "_forward_hooks", "whether a model computes what its classes say"),
    (nn.Module, "_forward_pre_hooks", "whether a model computes what its classes say"),
    (lambda: torch.zeros(1), "_version", "whether weights have changed"),
    (lambda: torch.ops.mkldnn, "_linear_pointwise", "products in bfloat16"),
    (lambda: torch.ops.mkldnn, "_reorder_linear_weight", "products in bfloat16"),
    (nn.Module, "_buffers", "what a module holds (tests)"),
    (nn.Module, "_modules", "what a module holds (tests)"),
    (nn.Module, "_parameters", "what a module holds (tests)"),
    # ── accelerate, datasets, evaluate, and what tests alone use ──
    ("accelerate.state.GradientState", "_set_sync_gradients", "accumulation without the data loader of accelerate"),
    ("accelerate.state.AcceleratorState", "_reset_state", "several runs in one process"),
    ("accelerate.state.PartialState", "_shared_state", "several runs in one process (tests)"),
    ("accelerate.commands.launch", "_validate_launch_command", "launch configurations are understood (tests)"),
    ("datasets.Dataset", "_indices", "where selected rows are on disk"),
    ("datasets.Dataset", "_fingerprint", "what is kept about rows"),
    ("datasets.fingerprint", "Hasher", "arguments as part of the name of cached rows"),
    ("evaluate.Metric", "_info", "a metric of our own"),
    ("evaluate.Metric", "_compute", "a metric of our own"),
    (argparse.ArgumentParser, "_actions", "the options of accelerate's launcher (tests)"),
    ("matplotlib.figure.Figure", "_suptitle", "the title of a picture (tests)"),
]
# Private by their look only, or checked below: `_replace` of named tuples and `os._exit` are documented.
EXCEPTIONS = {"_replace", "_exit", "_is_hf_initialized", "_registered_impl", "_is_user_defined"}
PRIVATE = re.compile("_[a-zA-Z]")
# Leans on the test-suite of transformers, which it fetches: nothing of it is installed.
SKIPPED_FILES = ["test_library_suite.py"]


def find(owner):
    """The class or module of a dotted name; an instance of a class that needs no arguments."""
    if not isinstance(owner, str):
        return owner()
    parts = owner.split(".")
    if parts[0] == "matplotlib":
        pytest.importorskip("matplotlib")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(owner)


def sets_attribute(cls, name):
    """Whether the constructor of a class, or of one that it is derived from, sets an attribute."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    return any(name in inspect.unwrap(made).__code__.co_names for made in constructors if inspect.isfunction(made))


def has(owner, name):
    found = find(owner)
    if hasattr(found, name) or (inspect.isclass(found) and sets_attribute(found, name)):
        return True
    return inspect.ismodule(found) and importlib.util.find_spec(f"{owner}.{name}") is not None


@pytest.mark.parametrize(("owner", "name", "use"), CONTRACT, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_private_name_that_we_lean_on_is_there(owner, name, use):
    if name in ("REMOVED_TASKS", "_resolve_deprecated_task") and Version(transformers.__version__) < Version("5.19"):
        pytest.skip("older versions have no such list, and need none")
    if name.startswith("_maybe_prepare_encoder") and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("older versions may have no such method: there the encoder is called as it always was")
    assert has(owner, name), f"{owner} has no {name} any more; we use it for: {use}"


def test_a_name_that_is_gone_is_noticed():
    assert not has("transformers.PreTrainedModel", "_no_such_name")
    assert not has("datasets.Dataset", "_no_such_name")
    assert not has("torch.utils", "_no_such_name")


def test_weights_that_were_loaded_are_not_initialized_again():
    """Parameters that transformers has loaded carry a mark, which the RNN's `_init_weights` looks at."""
    loaded, fresh = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    loaded._is_hf_initialized = True
    initialization.zeros_(loaded)
    initialization.zeros_(fresh)
    assert loaded.tolist() == [1, 1] and fresh.tolist() == [0, 0]


def test_generate_marks_a_cache_that_it_is_given():
    """The mark keeps the fast decoder, which makes no such cache, from a call with one."""
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=2))
    cache = DynamicCache()
    model.generate(torch.tensor([[1]]), past_key_values=cache, max_new_tokens=1)
    assert cache._is_user_defined


def test_registering_a_pipeline_leaves_a_mark_on_its_class():
    """Saving a pipeline with the mark would write custom code: `register_pipelines` takes it away."""
    from transformers import AutoModel, Pipeline
    from transformers.pipelines.base import PipelineRegistry

    class Some(Pipeline):
        pass

    PipelineRegistry(supported_tasks={}, task_aliases={}).register_pipeline("some", Some, pt_model=AutoModel)
    assert hasattr(Some, "_registered_impl")


# ── the list is complete ──


def own_names(trees):
    """The names that our own code defines: functions, classes, variables, attributes of self."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names |= {node.attr} if getattr(node.value, "id", "") == "self" else set()
    return names


def used_names(tree):
    """The private names that a file reads, imports, or asks for with getattr, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "hasattr",
            "setattr",
            "delattr",
        ):
            names = [name.value for name in node.args[1:2] if isinstance(name, ast.Constant)]
        else:
            continue
        yield from ((name, node.lineno) for name in names if PRIVATE.match(name))


def unlisted_names(root, listed):
    """The private names in use that are neither ours nor listed."""
    paths = [path for folder in ("fun_transformer", "tests") for path in sorted((root / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths if path.name not in SKIPPED_FILES}
    known = own_names(trees.values()) | listed
    return [
        f"{path.relative_to(root)}:{line} {name}"
        for path, tree in trees.items()
        for name, line in used_names(tree)
        if name not in known
    ]


def overridden_names():
    """The private names of other libraries' classes that our classes override."""
    for module in pkgutil.walk_packages(fun_transformer.__path__, "fun_transformer."):
        if module.name.endswith("__main__"):
            continue
        for cls in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(cls) or cls.__module__ != module.name:
                continue
            for base in cls.__mro__[1:]:
                if not base.__module__.startswith("fun_transformer"):
                    yield from (name for name in vars(cls) if PRIVATE.match(name) and name in vars(base))


def test_every_private_name_in_use_is_listed():
    unlisted = unlisted_names(ROOT, {name for _, name, _ in CONTRACT} | EXCEPTIONS)
    assert not unlisted, "\n".join(unlisted)


def test_every_private_name_that_our_classes_override_is_listed():
    for package in ("matplotlib", "gensim"):
        pytest.importorskip(package)  # subfolders need them
    listed = {name for _, name, _ in CONTRACT} | {"_abc_impl", "_backward_cls"}  # metaclasses set these
    assert set(overridden_names()) - listed == set()


@pytest.mark.parametrize(
    "line", ["x._gone()", "from torch import _gone", "import torch._gone", "getattr(x, '_gone', None)", "x._gone = 1"]
)
def test_an_unlisted_name_is_found(line, tmp_path):
    (tmp_path / "fun_transformer").mkdir()
    (tmp_path / "fun_transformer" / "a.py").write_text(f"def _ours(): pass\nself._mine = _ours\n{line}\nx._listed\n")
    assert unlisted_names(tmp_path, {"_listed"}) == ["fun_transformer/a.py:3 _gone"]


def test_every_listed_name_is_in_use():
    paths = [path for folder in ("fun_transformer", "tests") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.name != Path(__file__).name)
    assert [name for _, name, _ in CONTRACT if not re.search(rf"\b{name}\b", text)] == []
