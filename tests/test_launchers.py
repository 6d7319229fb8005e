"""The launchers of training/ start the trainer however they are run, and the Slurm script starts them on each node."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "training" / "configs" / "slurm_two_nodes.sh"
LAUNCHERS = ["train", "evaluate", "train_tokenizer"]
needs_bash = pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "training").glob("[a-z]*.py")))
def test_a_launcher_reaches_the_trainer_as_a_module(name, children):
    assert children.python("-m", f"training.{name}", "--help").startswith("usage:")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_reaches_the_trainer_as_a_file(name, tmp_path):
    """A file's own folder comes first on the path, where evaluate.py would hide the library evaluate."""
    command = [sys.executable, str(ROOT / "training" / f"{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:") and "Traceback" not in done.stderr


@needs_bash
@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_for_clusters_are_valid_bash(path):
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0


@needs_bash
def test_the_slurm_script_starts_one_launcher_a_node_with_its_rank(tmp_path):
    """Stand-ins for the commands of Slurm run the step once for each node and write down the launcher's words."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    commands = {
        "scontrol": 'printf "node-a\\nnode-b\\n"',
        "srun": 'shift\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": f'shift\nprintf "%s\\n" "$@" END >> {tmp_path}/words',
    }
    for name, lines in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_JOB_ID": "123456", "SLURM_NNODES": "2"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}
    recipe = [str(ROOT / "hub_configs" / "g2p-en" / "recipe.yaml"), "--output_dir", "a folder"]
    shutil.copytree(ROOT / "training" / "configs", tmp_path / "training" / "configs")
    subprocess.run(["bash", str(SLURM), *recipe], cwd=tmp_path, env=environment, check=True)
    launches = (tmp_path / "words").read_text(encoding="utf-8").split("END\n")[:-1]
    assert len(launches) == 2
    for rank, words in enumerate(launches):
        words = words.splitlines()
        words[words.index("--config_file") + 1] = str(ROOT / "training" / "configs" / "two_nodes.yaml")
        arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
        assert (arguments.num_machines, arguments.num_processes, arguments.machine_rank) == (2, 16, rank)
        assert (arguments.main_process_ip, arguments.main_process_port) == ("node-a", 23456)
        assert arguments.module and arguments.training_script == "training.train"
        assert arguments.training_script_args == [*recipe, "--resume", "auto"]


def test_the_page_of_the_launchers_names_each_of_their_files():
    page = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in (ROOT / "training" / "configs").iterdir()]
    names += [f"training.{path.stem}" for path in (ROOT / "training").glob("*.py") if path.stem != "__init__"]
    assert [name for name in names if name not in page] == []


def test_importing_a_launcher_starts_nothing():
    assert callable(runpy.run_path(str(ROOT / "training" / "train.py"))["main"])
