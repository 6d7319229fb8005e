"""How threads wait is set where a command begins, before torch is loaded, and nowhere else."""

import os
import subprocess
import sys

import pytest

from fun_transformer.openmp import SETTINGS, SPIN_COUNT, is_command


@pytest.mark.parametrize(
    ("argv", "program", "expected"),
    [
        (["python", "/env/bin/fun-transformer", "train"], "/env/bin/fun-transformer", True),
        (["python", "C:\\env\\Scripts\\fun-transformer.exe"], "fun-transformer.exe", True),
        (["python", "-m", "fun_transformer.training", "recipe.yaml"], "-m", True),
        (["python", "-u", "-m", "fun_transformer.cli"], "-m", True),
        (["python", "-m", "training.train"], "/checkout/training/train.py", True),
        (["python", "training/evaluate.py", "runs/a"], "training/evaluate.py", True),
        (["python", "-m", "examples.demo"], "/checkout/examples/demo.py", True),
        (["python", "-m", "pytest"], "/env/pytest/__main__.py", False),
        (["python", "-m"], "-m", False),
        (["python", "mine.py", "-m", "other"], "mine.py", False),
        (["python"], "", False),
    ],
)
def test_a_command_is_told_from_a_program_that_imports_the_package(argv, program, expected):
    assert is_command(argv, program) == expected


# What a process has as GOMP_SPINCOUNT after `import fun_transformer`, which ends where it would load transformers.
PRINT = """
import os, sys
sys.modules["transformers"] = None
try:
    import fun_transformer
except ModuleNotFoundError as error:
    assert error.name == "transformers", error
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def spin_count(command, **environment):
    """What a child process prints."""
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    result = subprocess.run(command, capture_output=True, text=True, env={**inherited, **environment}, check=True)
    return result.stdout.strip().splitlines()[-1]


def test_a_command_sets_a_short_spin_and_never_over_the_users(tmp_path):
    program = tmp_path / "fun-transformer"
    program.write_text(PRINT, encoding="utf-8")
    environment = {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(program)]
    assert spin_count(command, **environment) == str(SPIN_COUNT)
    assert spin_count(command, **environment, GOMP_SPINCOUNT="7") == "7"
    assert spin_count(command, **environment, OMP_WAIT_POLICY="ACTIVE") == "None"
    program.write_text("import torch\n" + PRINT, encoding="utf-8")
    assert spin_count(command, **environment) == "None"  # it would be read no more


def test_a_program_that_imports_the_package_keeps_its_environment():
    assert spin_count([sys.executable, "-c", PRINT], PYTHONPATH=os.getcwd()) == "None"
