"""Who may import whom, and the rules for the files that travel to the Hub.

Files that lie flat in fun_transformer/ travel to the Hub and import only their flat siblings; what does not travel is
in a subfolder, or is one of the few home files. Every rule is tried on the repository, and on a small bad tree that it
must refuse.
"""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

ROOT = Path(__file__).parents[1]
PACKAGE = "fun_transformer"

# Flat files: name pattern -> patterns of the siblings that it may import.
LEVEL_0 = ["int8", "positions", "losses", "dropout", "layer_norm", "config_checks"]
LEVEL_1 = ["attention", "mixers", "frontends", "token_model"]
LEVEL_2 = ["configuration_*", "masks", "copying", "generation"]
FLAT = {
    "int8": [],
    "positions": LEVEL_0,
    "losses": LEVEL_0,
    "dropout": LEVEL_0,
    "layer_norm": LEVEL_0,
    "config_checks": LEVEL_0,
    "attention": LEVEL_0,
    "mixers": [*LEVEL_0, "attention"],
    "frontends": [],
    "token_model": [*LEVEL_0, "frontends"],
    "configuration_*": [*LEVEL_0, "mixers", "frontends"],
    "masks": [*LEVEL_0, "mixers", "frontends", "configuration_*"],
    "copying": ["masks"],
    "fast_products": ["int8"],
    "fast_encoder": ["fast_products"],
    "fast_decoder": ["positions", "fast_products"],
    "fast_search": ["fast_decoder"],
    "fast_generation": [*LEVEL_0, "attention", "frontends", "fast_products", "fast_encoder", "fast_decoder"],
    "generation": ["positions", "fast_search", "fast_generation"],
    "modeling_*": [*LEVEL_0, *LEVEL_1, *LEVEL_2],
    "tokenization_*": [],
    "text_parts": [],
    "pipeline_options": [],
    "pipeline_records": ["text_parts", "pipeline_options"],
    "number_types": [],
    "pipeline_workers": [],
    "pipeline_batches": ["text_parts", "pipeline_options", "pipeline_records", "pipeline_workers"],
    "pipeline_*": ["text_parts", "number_types", "pipeline_options", "pipeline_records", "pipeline_batches"],
}
HOME = {  # flat files that do not travel -> what they may import of ours
    "__init__": [*FLAT, "openmp", "engines"],
    "__main__": ["cli"],
    "files": [],
    "openmp": [],
    "plugins": [],
    "cli": ["*"],
}
SUBFOLDERS = [  # a subfolder may import those of the rows before it
    ["embeddings", "analysis", "decoding", "conversion"],
    ["engines"],
    ["visualization", "hub"],
    ["training"],
    ["evaluation"],
    ["export"],
    ["serving"],
    ["commands"],
]
# The rooms of fun_transformer/training: each may import those before it.
ROOMS = ["platform", "tables", "recipe", "data", "metrics", "optimization", "train_tokenizer", "objectives"]
ROOMS += [
    "media_objectives",
    "run",
    "model",
    "engine",
    "scoring",
    "loop",
    "dry_run",
    "train",
    "evaluate",
    "__init__",
    "__main__",
]

LIBRARIES = {"torch", "transformers", "tokenizers", "huggingface_hub", "regex"}  # transformers needs them all
TRAVELLING_LIBRARIES = LIBRARIES | set(sys.stdlib_module_names)
MORE_LIBRARIES = {"pipeline_image_to_text": {"PIL"}}  # without which transformers reads no picture either
OUTSIDE = ["training", "benchmarks", "course", "examples"]
LAUNCHER_LINES = 25


def matches(name, patterns):
    return any(fnmatch(name, pattern) for pattern in patterns)


def imports(path):
    """All imports of a file, those inside its functions too.

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


def resolve(path: Path, root: Path, level: int, module: str, name: str | None) -> str:
    """The module that `from {dots}{module} import {name}` in a file refers to: a.b counts where it is a module."""
    package = path.relative_to(root).parent.parts
    parts = [*(package[: len(package) - level + 1] if level else []), *(module.split(".") if module else [])]
    deeper = root.joinpath(*parts, name or "")
    is_module = name and (deeper.is_dir() or deeper.with_suffix(".py").is_file())
    return ".".join([*parts, name] if is_module else parts)


def absolute_modules(path: Path, root: Path) -> Iterator[str]:
    """The modules that a file imports, relative ones resolved."""
    for level, module, names in imports(path):
        for name in names or [None]:
            yield resolve(path, root, level, module, name)


def travelling_faults(path):
    """The faults of one flat file: an unknown name, a forbidden sibling or library, an import the Hub misreads."""
    patterns = [pattern for pattern in FLAT if fnmatch(path.stem, pattern)]
    if not patterns:
        yield f"{path.name} has no level in the import table: what stays at home lives in a subfolder"
        return
    for level, module, names in imports(path):
        library = module.split(".")[0]
        if level == 0 and library not in TRAVELLING_LIBRARIES | MORE_LIBRARIES.get(path.stem, set()):
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


def home_faults(path: Path, root: Path) -> Iterator[str]:
    """The faults of a flat file that does not travel."""
    for module in absolute_modules(path, root):
        parts = module.split(".")
        ours = parts[0] == PACKAGE and parts[1:]
        if ours and not matches(parts[1], HOME[path.stem]):
            yield f"{path.name} may not import {module}"
        if path.stem == "files" and parts[0] not in {PACKAGE, *sys.stdlib_module_names}:
            yield f"{path.name} may import the standard library alone, not {module}"


def subfolder_faults(path: Path, root: Path) -> Iterator[str]:
    """A subfolder uses the flat files, itself, and the subfolders below it."""
    folder = path.relative_to(root / PACKAGE).parts[0]
    level = next((number for number, names in enumerate(SUBFOLDERS) if folder in names), None)
    if level is None:
        yield f"{folder} is no known subfolder: {SUBFOLDERS}"
        return
    others = {"cli", *(name for names in SUBFOLDERS[level:] for name in names)} - {folder}
    for module in absolute_modules(path, root):
        parts = module.split(".")
        if parts[0] in OUTSIDE:
            yield f"{path.relative_to(root)} may not import {module}, which is not installed with the package"
        if parts[0] == PACKAGE and others & set(parts[1:2]):
            yield f"{path.relative_to(root)} may not import {module}"


def room_faults(path: Path, root: Path) -> Iterator[str]:
    """A room of the trainer, a file or a folder, imports the rooms before it."""
    room = Path(path.relative_to(root / PACKAGE / "training").parts[0]).stem
    if room not in ROOMS:
        yield f"training/{room} has no place among the rooms of the trainer: {ROOMS}"
        return
    for module in absolute_modules(path, root):
        parts = module.split(".")
        if parts[:2] == [PACKAGE, "training"]:
            other = parts[2] if len(parts) > 2 else "__init__"
            if other != room and other not in ROOMS[: ROOMS.index(room)]:
                yield f"{path.relative_to(root)} may not import {module}: its room comes before"


def find_circle(root: Path) -> list[str]:
    """Files of the package that import each other in a circle; none when they can be sorted."""
    graph = {}
    for path in (root / PACKAGE).rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = {module for module in absolute_modules(path, root) if module != name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def bindings(tree: ast.AST, path: Path, root: Path) -> dict[str, str]:
    """The names that the imports of a file bind, each with the module that it is or comes from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                found |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = resolve(path, root, node.level, node.module or "", alias.name)
                found[alias.asname or alias.name] = module
    return found


def private_faults(path: Path, root: Path) -> Iterator[str]:
    """A name with a leading underscore is used in its own folder only."""
    tree, folder = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(root).parent
    modules = bindings(tree, path, root)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = modules.get(node.value.id, ""), node.attr
        elif isinstance(node, ast.alias):
            module, name = modules.get(node.asname or node.name, ""), node.name
        else:
            continue
        where = Path(*module.split("."))
        is_elsewhere = folder != (where if (root / where).is_dir() else where.parent)
        if is_elsewhere and module.split(".")[0] in (PACKAGE, *OUTSIDE) and re.match("_[^_]", name):
            yield f"{path.relative_to(root)}:{node.lineno} uses {name} of {module}"


def dotted(node: ast.AST, modules: dict[str, str]) -> str:
    """What an expression such as `loop.TrainingLoop` names; "" if it is no such expression."""
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, modules)
        return f"{owner}.{node.attr}" if owner else ""
    return modules.get(node.id, "") if isinstance(node, ast.Name) else ""


def patch_faults(path: Path, root: Path) -> Iterator[str]:
    """Code outside the trainer assigns to no private name of it; benchmarks and examples to no name at all.

    What they need to change is a parameter.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules, is_test = bindings(tree, path, root), path.relative_to(root).parts[0] == "tests"
    for node in ast.walk(tree):
        targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
        changed = [(target.value, target.attr) for target in targets if isinstance(target, ast.Attribute)]
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            changed += [(node.args[0], name.value) for name in node.args[1:2] if isinstance(name, ast.Constant)]
        for owner, name in changed:
            of_trainer = f"{dotted(owner, modules)}.".startswith(f"{PACKAGE}.training.")
            if of_trainer and (str(name).startswith("_") or not is_test):
                yield f"{path.relative_to(root)}:{node.lineno} assigns to {name} of the trainer: make it a parameter"


def public_names(module, root):
    """The names in the `__all__` of a module or package."""
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else []:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def outside_faults(path: Path, root: Path) -> Iterator[str]:
    """Launchers, benchmarks and examples use siblings and the package's public names, as any other software would.

    Public are the names in `__all__`; in the trainer and in files.py, those without a leading underscore.
    """
    folder = path.relative_to(root).parts[0]
    for level, module, names in imports(path):
        library = module.split(".")[0]
        if level == 0 and library in OUTSIDE and library != folder:
            yield f"{path.relative_to(root)} may not import {module}"
        if level == 0 and library == PACKAGE and module.split(".")[1:2] not in (["training"], ["files"]):
            if not names and module != PACKAGE:
                yield f"{path.relative_to(root)} imports the module {module}: import public names from it"
            elif hidden := set(names) - public_names(module, root):
                yield f"{path.relative_to(root)} imports {sorted(hidden)}, not in {module}.__all__"
    lines = path.read_text(encoding="utf-8").count("\n")
    if folder == "training" and lines >= LAUNCHER_LINES:
        yield f"{path.relative_to(root)} has {lines} lines; a launcher has fewer than {LAUNCHER_LINES}"


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


def layout_faults(root: Path) -> list[str]:
    """Every fault of a tree, as sentences."""
    faults = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        relative = path.relative_to(root / PACKAGE)
        faults += [*code_faults(path, root), *private_faults(path, root)]
        if len(relative.parts) > 1:
            faults += subfolder_faults(path, root)
            faults += room_faults(path, root) if relative.parts[0] == "training" else []
        else:
            faults += home_faults(path, root) if path.stem in HOME else travelling_faults(path)
    if circle := find_circle(root):
        faults.append(f"These import each other in a circle: {' <- '.join(circle)}")
    for folder in OUTSIDE:
        for path in sorted((root / folder).rglob("*.py")):
            for rule in (code_faults, private_faults, outside_faults, patch_faults):
                faults += rule(path, root)
    for path in sorted((root / "tests").rglob("*.py")):
        faults += patch_faults(path, root)
    return faults


@pytest.fixture
def small_tree(tmp_path):
    """A tree without a fault, which has a file of each kind."""
    files = {
        "__init__": '__all__ = ["Model"]',
        "masks": "",
        "positions": "",
        "losses": '__all__ = ["loss"]\nfrom .positions import count',
        "analysis/__init__": "",
        "analysis/costs": "",
        "visualization/__init__": "",
        "visualization/html": "from ..analysis import costs",
        "hub/__init__": "",
        "training/__init__": "from .loop import TrainingLoop",
        "training/recipe/__init__": "",
        "training/recipe/reading": "",
        "training/recipe/checks": "from .reading import read",
        "training/loop": "from .recipe import checks",
    }
    for name, text in files.items():
        path = tmp_path / PACKAGE / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert layout_faults(tmp_path) == []
    return tmp_path


def test_the_repository_keeps_its_layout():
    faults = layout_faults(ROOT)
    assert not faults, "\n".join(faults)


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
        ("fun_transformer/masks.py", "from .files import sync"),
        ("fun_transformer/files.py", "import torch"),
        ("fun_transformer/files.py", "from .masks import causal"),
        ("fun_transformer/__init__.py", "from .training import train"),
        ("fun_transformer/__init__.py", "from .cli import main"),
        ("fun_transformer/embeddings/glove.py", "from ..analysis import costs"),
        ("fun_transformer/analysis/costs.py", "from .. import visualization"),
        ("fun_transformer/analysis/costs.py", "import fun_transformer.visualization.html"),
        ("fun_transformer/visualization/html.py", "from ..hub.card import write"),
        ("fun_transformer/hub/card.py", "from ..cli import main"),
        ("fun_transformer/hub/card.py", "from ..training.train import train"),
        ("fun_transformer/hub/card.py", "from training.train import main"),
        ("fun_transformer/hub/card.py", "from ..masks import _helper"),
        ("fun_transformer/hub/card.py", "from .. import masks\nmasks._helper()"),
        ("fun_transformer/extras/card.py", "import torch"),
        ("fun_transformer/training/train.py", "from ..cli import main"),
        ("fun_transformer/training/extras.py", "import torch"),
        ("fun_transformer/training/recipe/reading.py", "from ..data.files import read_lines"),
        ("fun_transformer/training/data/files.py", "from .. import loop"),
        ("fun_transformer/training/data/files.py", "def late():\n    from ..objectives import Objective"),
        ("fun_transformer/training/metrics.py", "from . import RunArguments"),
        ("fun_transformer/training/run/folder.py", "from ..model.kept import KeptModels"),
        ("fun_transformer/training/loop.py", "from .recipe.reading import _read"),
        ("fun_transformer/training/loop.py", "from .recipe import reading\nreading._read()"),
        ("fun_transformer/training/recipe/reading.py", "from .checks import check"),  # which imports reading
        ("fun_transformer/positions.py", "from .losses import loss"),  # which imports positions
        ("training/loop.py", "from fun_transformer.losses import hidden_helper"),
        ("training/loop.py", "from fun_transformer.no_such_file import loss"),
        ("training/loop.py", "from fun_transformer import hidden_helper"),
        ("training/loop.py", "import fun_transformer.losses"),
        ("training/loop.py", "from examples.demo import main"),
        ("training/loop.py", "import sys\n" * 25),
        ("benchmarks/speed.py", "from training.train import main"),
        ("benchmarks/speed.py", "from fun_transformer.training.recipe.reading import _read"),
        ("benchmarks/speed.py", "import fun_transformer.training.loop as loop\nloop.time = None"),
        ("benchmarks/speed.py", "from fun_transformer.training import loop\nloop.TrainingLoop.run = None"),
        ("examples/demo.py", "from fun_transformer.training.loop import TrainingLoop\nTrainingLoop.run = None"),
        ("examples/demo.py", "import fun_transformer.training.loop\nfun_transformer.training.loop.time = None"),
        ("tests/test_x.py", "from fun_transformer.training import loop\nloop._time: int = 1"),
        ("tests/test_x.py", "from fun_transformer.training.loop import TrainingLoop as T\nT._run += 1"),
        ("tests/test_x.py", "from fun_transformer.training import loop\nmonkeypatch.setattr(loop, '_time', 1)"),
    ],
)
def test_the_layout_check_refuses(name, line, small_tree):
    path = small_tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.read_text() if path.is_file() else ''}{line}\n")
    assert layout_faults(small_tree) != []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fun_transformer/attention.py", "import math\n\nfrom torch import nn\n\nfrom .positions import table"),
        ("fun_transformer/modeling_x.py", "from .attention import scores\nfrom .configuration_x import Config"),
        ("fun_transformer/losses.py", "def f():\n    return _helper()"),
        ("fun_transformer/mixers.py", "from .losses import _helper"),
        ("fun_transformer/cli.py", "from .training.train import main\nfrom .hub import card"),
        ("fun_transformer/__init__.py", "from .masks import causal"),
        ("fun_transformer/hub/card.py", "import yaml\n\nfrom ..modeling_x import Model\nfrom .check import check"),
        ("fun_transformer/hub/card.py", "from ..analysis import costs\nfrom ..files import sync"),
        ("fun_transformer/visualization/html.py", "from ..analysis.costs import cost"),
        ("fun_transformer/training/train.py", "from ..hub import card\nfrom .loop import TrainingLoop"),
        ("fun_transformer/training/model/kept.py", "from ..recipe.reading import read\nfrom .averaging import mean"),
        ("training/evaluate.py", "from fun_transformer.training.loop import TrainingLoop"),
        ("training/evaluate.py", "import fun_transformer\nfrom fun_transformer.losses import loss"),
        ("benchmarks/speed.py", "from fun_transformer.training import loop\nloop.TrainingLoop.state = loop.time"[:44]),
        ("tests/test_x.py", "from fun_transformer.training import loop\nmonkeypatch.setattr(loop, 'time', 1)"),
        ("tests/test_x.py", "from fun_transformer.masks import causal\ncausal._settings = 1"),
    ],
)
def test_the_layout_check_allows(name, line, small_tree):
    path = small_tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.read_text() if path.is_file() else ''}{line}\n")
    assert layout_faults(small_tree) == []


def test_attention_classes_stand_beside_the_attention_interface():
    """transformers greps a file with an Attention class for this text, to know that attn_implementation works."""
    for path in (ROOT / PACKAGE).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"class \w+Attention\(nn\.Module\)", text):
            assert "ALL_ATTENTION_FUNCTIONS.get_interface(" in text, path.name
