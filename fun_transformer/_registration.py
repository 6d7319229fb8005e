"""Registers our classes with transformers as soon as, and only when, the parts of it that list classes are imported.

Model, generation and pipelines take seconds to import, so `import fun_transformer` imports none of them. It watches
for the modules that hold the Auto classes and the pipelines; whoever has imported one of them finds us in it. Heads
are listed by name: their class is imported when it is asked for, never in the middle of another import.

This file stays at home, as `__init__.py` does: code from the Hub is found by `auto_map` and needs no registration.
"""

import copy
import importlib
import sys
from collections import UserDict

AUTO = "transformers.models.auto"
PIPELINES = "transformers.pipelines"

HEADS = {  # model_type -> Auto class -> head
    "fun_transformer": {
        "AutoModel": "FunTransformerModel",
        "AutoModelForSeq2SeqLM": "FunTransformerForConditionalGeneration",
        "AutoModelForTextEncoding": "FunTransformerEncoderModel",
        "AutoModelForMaskedLM": "FunTransformerForMaskedLM",
        "AutoModelForCausalLM": "FunTransformerForCausalLM",
        "AutoModelForSequenceClassification": "FunTransformerForSequenceClassification",
        "AutoModelForTokenClassification": "FunTransformerForTokenClassification",
    },
    "seq2seq_rnn": {"AutoModelForSeq2SeqLM": "Seq2SeqRNNForConditionalGeneration"},
}


class LazyClasses(UserDict):
    """What was registered with one Auto class; a class of ours is a name until somebody asks for it."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        return getattr(importlib.import_module(__package__), value) if isinstance(value, str) else value


def register_config(auto, ours):
    config_class = getattr(ours, ours.__all__[0])
    auto.AutoConfig.register(config_class.model_type, config_class)


def register_heads(auto, ours):
    config_class = getattr(ours, ours.__all__[0])
    for auto_class, head in HEADS[config_class.model_type].items():
        mapping = getattr(auto, auto_class)._model_mapping
        if not isinstance(mapping._extra_content, LazyClasses):
            mapping._extra_content = LazyClasses(mapping._extra_content)
        mapping._extra_content[config_class] = head


def register_tokenizer(auto, ours):
    from .configuration_fun_transformer import FunTransformerConfig
    from .configuration_seq2seq_rnn import Seq2SeqRNNConfig

    for config_class in (FunTransformerConfig, Seq2SeqRNNConfig):
        auto.AutoTokenizer.register(config_class, fast_tokenizer_class=ours.FunTransformerTokenizer)


def register_pipelines(pipelines, ours):
    ours.register_pipelines()


# (a module of transformers, the module of ours that is registered with it, how): done when both have been executed.
REGISTRATIONS = [
    (f"{AUTO}.configuration_auto", f"{__package__}.configuration_fun_transformer", register_config),
    (f"{AUTO}.configuration_auto", f"{__package__}.configuration_seq2seq_rnn", register_config),
    (f"{AUTO}.modeling_auto", f"{__package__}.configuration_fun_transformer", register_heads),
    (f"{AUTO}.modeling_auto", f"{__package__}.configuration_seq2seq_rnn", register_heads),
    (f"{AUTO}.tokenization_auto", f"{__package__}.tokenization_fun_transformer", register_tokenizer),
    (PIPELINES, f"{__package__}.pipeline_fun_transformer", register_pipelines),
]


class Watcher:
    """Finds the modules of `REGISTRATIONS` as Python would, and is told when they have been executed (PEP 451)."""

    def __init__(self):
        self.executed: set[str] = set()

    def find_spec(self, name, path=None, target=None):
        if not any(name in registration for registration in REGISTRATIONS):
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, Watcher)]
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = copy.copy(spec.loader)  # it may serve other modules, too
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                self.register(name)

            spec.loader.exec_module = execute_and_register
        return spec

    def register(self, name: str) -> None:
        """Does what can be done now that the module `name` has been executed."""
        self.executed.add(name)
        for theirs, ours, register in REGISTRATIONS:
            if name == theirs and ours not in self.executed:
                # Comes back here at its end. Where the import of ours led to this one, it is under way already.
                importlib.import_module(ours)
            elif name in (theirs, ours) and {theirs, ours} <= self.executed:
                register(sys.modules[theirs], sys.modules[ours])


def watch() -> None:
    """Registers with what is imported already, and from now on with what will be; a second call changes nothing."""
    if any(isinstance(finder, Watcher) for finder in sys.meta_path):
        return
    watcher = Watcher()
    sys.meta_path.insert(0, watcher)
    for theirs, _, _ in REGISTRATIONS:
        if theirs in sys.modules:
            importlib.import_module(theirs)  # waits where another thread is still importing it
            watcher.register(theirs)
