"""The import directions of the house, and the rules for the files that travel to the Hub.

Files that lie flat in fun_transformer/ travel to the Hub and import only their flat siblings; what stays at home lives
in a subfolder. Every rule is tried on the repository, and on a small bad tree that it must refuse.
"""

import ast
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

ROOT = Path(__file__).parents[1]
PACKAGE = "fun_transformer"

# Flat files: name pattern -> patterns of the siblings that it may import.
LEVEL_0 = ["masks", "positions", "losses", "dropout", "layer_norm", "configuration_*"]
LEVEL_1 = ["attention", "mixers"]
FLAT = {
    "masks": LEVEL_0,
    "positions": LEVEL_0,
    "losses": LEVEL_0,
    "dropout": LEVEL_0,
    "layer_norm": LEVEL_0,
    "configuration_*": LEVEL_0,
    "attention": LEVEL_0,
    "mixers": [*LEVEL_0, "attention"],
    "tokenization_*": [],
    "modeling_*": [*LEVEL_0, *LEVEL_1],
    "pipeline_*": [],
}
STAY_HOME = ["__init__", "__main__", "_registration", "cli"]  # no file that travels may import them
SUBFOLDERS = ["embeddings", "visualization", "analysis", "conversion", "export", "hub", "demo"]
TRAVELLING_LIBRARIES = {"torch", "transformers", "tokenizers", "huggingface_hub"} | set(sys.stdlib_module_names)
OUTSIDE = ["training", "benchmarks", "examples"]
OUTSIDE_MAY_USE = {"training": [], "benchmarks": ["training"], "examples": ["training"]}


def matches(name, patterns):
    return any(fnmatch(name, pattern) for pattern in patterns)


def imports(path):
    """All imports of a file, wherever in it they stand.

    Returns:
        List of (level, module, names): `from ..a.b import c` is (2, "a.b", ["c"]); `import a.b` is (0, "a.b", []).
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", [alias.name for alias in node.names]))
    return found


def absolute_modules(path, root):
    """The modules that a file imports, relative ones resolved; `from a import b` counts as a.b if that exists."""
    package = list(path.relative_to(root).parent.parts)
    for level, module, names in imports(path):
        parts = [*(package[: len(package) - level + 1] if level else []), *(module.split(".") if module else [])]
        for name in names or [None]:
            deeper = root.joinpath(*parts, name or "")
            is_module = name and (deeper.is_dir() or deeper.with_suffix(".py").is_file())
            yield ".".join([*parts, name] if is_module else parts)


def travelling_faults(path):
    """The faults of one flat file: an unknown name, a forbidden sibling or library, an import the Hub misreads."""
    patterns = [pattern for pattern in FLAT if fnmatch(path.stem, pattern)]
    if not patterns:
        yield f"{path.name} has no level in the import table: what stays at home lives in a subfolder"
        return
    for level, module, names in imports(path):
        library = module.split(".")[0]
        if level == 0 and library not in TRAVELLING_LIBRARIES:
            yield f"{path.name} imports {library}, which may be missing where it is loaded from the Hub"
        elif level == 0 and module == "__future__":
            yield f"{path.name} imports annotations from __future__, which breaks `config: SomeConfig`"
        elif level > 1 or (level == 1 and (not module or "." in module)):
            yield f"{path.name} has `from {'.' * level}{module} import {names[0]}`, which the Hub does not follow"
        elif level == 1 and not matches(module, FLAT[patterns[0]]):
            yield f"{path.name} may not import .{module}"
    written = {module for level, module, _ in imports(path) if level == 1}
    if set(get_relative_imports(path)) != written:
        yield f"{path.name}: transformers finds the siblings {get_relative_imports(path)}, Python {sorted(written)}"


def subfolder_faults(path, root):
    """A subfolder uses the flat files and itself, not another subfolder; the demo may use all of them."""
    folder = path.relative_to(root / PACKAGE).parts[0]
    for module in absolute_modules(path, root):
        parts = module.split(".")
        if parts[0] in OUTSIDE:
            yield f"{path.relative_to(root)} may not import {module}, which is not installed with the package"
        others = {*SUBFOLDERS, "cli"} - {folder}
        if parts[0] == PACKAGE and others & set(parts[1:2]) and folder != "demo":
            yield f"{path.relative_to(root)} may not import {module}"


def public_names(module, root):
    """The names in the `__all__` of a module or package."""
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else []:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def outside_faults(path, root):
    """Training, benchmarks and examples use siblings and the package's public names, as any other software would."""
    folder = path.relative_to(root).parts[0]
    for level, module, names in imports(path):
        library = module.split(".")[0]
        if level == 0 and library in OUTSIDE and library not in [folder, *OUTSIDE_MAY_USE[folder]]:
            yield f"{path.relative_to(root)} may not import {module}"
        if level == 0 and library == PACKAGE:
            if not names and module != PACKAGE:
                yield f"{path.relative_to(root)} imports the module {module}: import public names from it"
            elif hidden := set(names) - public_names(module, root):
                yield f"{path.relative_to(root)} imports {sorted(hidden)}, not in {module}.__all__"


def code_faults(path, root):
    """No assert (it vanishes under -O and is no message to a user), and no forward() that stores something on self."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Assert):
            yield f"{where} has an assert: raise ValueError"
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            stored = [target for statement in ast.walk(node) for target in getattr(statement, "targets", [])]
            for target in stored:
                if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                    yield f"{where}: forward stores self.{target.attr}"


def layout_faults(root):
    """Every fault of a tree, as sentences."""
    faults = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        relative = path.relative_to(root / PACKAGE)
        faults += code_faults(path, root)
        if len(relative.parts) > 1:
            if relative.parts[0] not in SUBFOLDERS:
                faults.append(f"{relative.parts[0]} is no known subfolder: {SUBFOLDERS}")
            faults += subfolder_faults(path, root)
        elif path.stem not in STAY_HOME:
            faults += travelling_faults(path)
    for folder in OUTSIDE:
        for path in sorted((root / folder).rglob("*.py")):
            faults += code_faults(path, root)
            faults += outside_faults(path, root)
    return faults


def test_the_repository_keeps_its_layout():
    assert layout_faults(ROOT) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fun_transformer/positions.py", "from .attention import scores"),
        ("fun_transformer/attention.py", "from .modeling_x import Layer"),
        ("fun_transformer/attention.py", "from .mixers import Convolution"),
        ("fun_transformer/modeling_x.py", "from .modeling_y import Layer"),
        ("fun_transformer/modeling_x.py", "from . import attention"),
        ("fun_transformer/modeling_x.py", "from ..training import loop"),
        ("fun_transformer/modeling_x.py", "from .hub.card import write"),
        ("fun_transformer/modeling_x.py", "from fun_transformer.attention import scores"),
        ("fun_transformer/modeling_x.py", "def f():\n    import numpy"),
        ("fun_transformer/modeling_x.py", "from __future__ import annotations"),
        ("fun_transformer/modeling_x.py", '"""Text.\nfrom .layers import name\n"""'),
        ("fun_transformer/modeling_x.py", "class A:\n    def forward(self, x):\n        self.weights = x"),
        ("fun_transformer/pipeline_x.py", "from .modeling_x import Model"),
        ("fun_transformer/tokenization_x.py", "from .configuration_x import Config"),
        ("fun_transformer/helpers.py", "import torch"),
        ("fun_transformer/losses.py", "assert True"),
        ("fun_transformer/hub/card.py", "from ..analysis import costs"),
        ("fun_transformer/hub/card.py", "from .. import analysis"),
        ("fun_transformer/hub/card.py", "import fun_transformer.analysis.costs"),
        ("fun_transformer/hub/card.py", "from training.args import Recipe"),
        ("fun_transformer/extras/card.py", "import torch"),
        ("training/loop.py", "from fun_transformer.losses import hidden_helper"),
        ("training/loop.py", "from fun_transformer.no_such_file import loss"),
        ("training/loop.py", "from fun_transformer import hidden_helper"),
        ("training/loop.py", "import fun_transformer.losses"),
        ("training/loop.py", "from examples.demo import main"),
    ],
)
def test_the_layout_check_refuses(name, line, tmp_path):
    for folder in ("analysis", "hub"):
        (tmp_path / PACKAGE / folder).mkdir(parents=True)
        (tmp_path / PACKAGE / folder / "__init__.py").touch()
    (tmp_path / PACKAGE / "__init__.py").write_text('__all__ = ["Model"]\n')
    (tmp_path / PACKAGE / "losses.py").write_text('__all__ = ["loss"]\n')
    assert layout_faults(tmp_path) == []
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert layout_faults(tmp_path) != []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fun_transformer/attention.py", "import math\n\nfrom torch import nn\n\nfrom .positions import table"),
        ("fun_transformer/modeling_x.py", "from .attention import scores\nfrom .configuration_x import Config"),
        ("fun_transformer/hub/card.py", "import yaml\n\nfrom ..modeling_x import Model\nfrom .check import check"),
        ("fun_transformer/demo/app.py", "from ..analysis import costs"),
        ("training/loop.py", "from fun_transformer import Model\nfrom training.args import Recipe"),
        ("training/loop.py", "import fun_transformer\nfrom fun_transformer.losses import loss"),
        ("benchmarks/speed.py", "from training.args import Recipe"),
    ],
)
def test_the_layout_check_allows(name, line, tmp_path):
    (tmp_path / PACKAGE / "analysis").mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_text('__all__ = ["Model"]\n')
    (tmp_path / PACKAGE / "losses.py").write_text('__all__ = ["loss"]\n')
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert layout_faults(tmp_path) == []


def test_attention_classes_stand_beside_the_attention_interface():
    """transformers greps a file with an Attention class for this text, to know that attn_implementation works."""
    for path in (ROOT / PACKAGE).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"class \w+Attention\(nn\.Module\)", text):
            assert "ALL_ATTENTION_FUNCTIONS.get_interface(" in text, path.name
