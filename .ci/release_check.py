"""What a release must be: `python .ci/release_check.py`, or `make release-check`, from the top of a checkout.

1. version, changelog, citation, Space and skill agree, and the version is a semantic one;
2. the wheel and the source archive are built, from the archive, and hold what they must and no weights;
3. the wheel is installed in a fresh environment, imported, and asked for its version and its help;
4. the README's commands and Python run there, on a model that is trained for three steps, and those of the card do.

It needs the network (for the packages of the fresh environment) and some minutes. The versions are those of
constraints.txt.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = "train,viz,demo"
MOST_MEGABYTES = 3  # of a wheel or source archive; the weights of the checkout are 62 MB
NEEDED = (
    "py.typed",
    "cli.py",
    "training/data/splits.py",
    "visualization/attention_page.html",
    "evaluation/report.html",
    "serving/page.html",
)
NEEDED += ("hub/card_template.md", "hub_configs/g2p-en/recipe.yaml", "hub_configs/transformer-base/config.json")
NOT_COPIED = {".git", "runs", "build", "dist", "site", "data"}  # of the top of a checkout
SEMANTIC = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
# Three steps on a few hundred words: what the README's commands work on.
TRAINING = (
    "train g2p-en --output_dir runs/demo --training.max_steps 3 --data.max_rows 300 --generation.max_new_tokens 8"
)


def read(name: str) -> str:
    """Return a text file of the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it printed; an error ends the check."""
    print("$", shlex.join(map(str, command)), flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}\n{result.stderr}\nThe release is not good: the command above failed.")
    return result.stdout


def versions() -> dict[str, str | None]:
    """Return the version that each place of the checkout names."""

    def find(name: str, pattern: str) -> str | None:
        found = re.search(pattern, read(name), flags=re.MULTILINE)
        return found[1] if found else None

    changelog = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", read("CHANGELOG.md"), flags=re.MULTILINE)
    released = next((version for version, date in changelog if version != "Unreleased" and date), None)
    return {
        "pyproject.toml": tomllib.loads(read("pyproject.toml"))["project"]["version"],
        "fun_transformer/__init__.py": find("fun_transformer/__init__.py", r'^__version__ = "(.+)"'),
        "CITATION.cff": find("CITATION.cff", r"^version: (\S+)"),
        "CHANGELOG.md (the newest with a date)": released,
        "demo/requirements.txt": find("demo/requirements.txt", r"@v(\S+)$"),
        "skills/fun-transformer/SKILL.md": find("skills/fun-transformer/SKILL.md", r'^  version: "(.+)"'),
    }


def version_problems(found: dict[str, str | None], tag: str | None = None) -> list[str]:
    """Return what is wrong with the versions of the places, one sentence each.

    Args:
        found: By place.
        tag: The tag that is to be released, such as v0.2.0.
    """
    version = str(found["pyproject.toml"])
    problems = [
        f"{place} says {named}, pyproject.toml {version}." for place, named in found.items() if named != version
    ]
    if not SEMANTIC.fullmatch(version):
        problems.append(f"{version} is no semantic version, such as 0.2.0.")
    if tag is not None and tag != f"v{version}":
        problems.append(f"The tag is {tag}, and the version {version}: it must be v{version}.")
    return problems


def archive_problems(names: list[str], size: int, prefix: str) -> list[str]:
    """Return what is wrong with what an archive holds.

    Args:
        names: Of its files.
        size: Its bytes.
        prefix: The folder of the package in it, with a slash at its end.
    """
    problems = [f"{prefix}{name} is missing." for name in NEEDED if not has(names, prefix, name)]
    problems += [f"{name} are weights." for name in names if name.endswith((".safetensors", ".onnx", ".bin", ".pt"))]
    problems += [f"{name} does not belong there." for name in names if "__pycache__" in name or "/runs/" in name]
    if size > MOST_MEGABYTES * 1e6:
        problems.append(f"It has {size / 1e6:.1f} MB; {MOST_MEGABYTES} are allowed.")
    return problems


def has(names: list[str], prefix: str, name: str) -> bool:
    """Tell whether a file of the package is in an archive; in the source archive hub_configs is beside the package."""
    return f"{prefix}{name}" in names or f"{prefix.replace('fun_transformer/', '')}{name}" in names


def build(python: Path, folder: Path) -> tuple[Path, Path]:
    """Build the source archive, and the wheel from it; check what they hold, and return wheel and archive."""
    copy = shutil.copytree(ROOT, folder / "checkout", ignore=left_out)  # the build leaves nothing in the checkout
    run(python, "-m", "build", "--outdir", folder, copy, cwd=folder)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        problems = archive_problems(archive.namelist(), wheel.stat().st_size, "fun_transformer/")
    with tarfile.open(source) as archive:
        names = archive.getnames()
    problems += archive_problems(
        names, source.stat().st_size, f"{source.name.removesuffix('.tar.gz')}/fun_transformer/"
    )
    if problems:
        sys.exit("\n".join(problems))
    for path in (wheel, source):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    return wheel, source


def left_out(folder: str, names: list[str]) -> list[str]:
    """Return what of a folder is not copied: environments, runs, and what tools leave."""
    top = NOT_COPIED if Path(folder) == ROOT else set()
    ends = (".egg-info", "__pycache__", "_cache")
    return [name for name in names if name in top or name.startswith(".venv") or name.endswith(ends)]


def fresh_environment(folder: Path, *packages: str | Path) -> Path:
    """Make an environment, install packages there, and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if packages:
        run(*pip, "-c", CONSTRAINTS, *packages, cwd=folder)
    return python


def use(python: Path, folder: Path, version: str) -> None:
    """Do with the installed package what the README does."""
    command = python.with_name("fun-transformer")
    where = run(python, "-c", "import fun_transformer as f; print(f.__file__, f.__version__)", cwd=folder).split()
    if ROOT in Path(where[0]).parents or where[1] != version:
        sys.exit(f"{where[0]} of version {where[1]} was imported, not the installed one of {version}.")
    if run(command, "--version", cwd=folder).split()[-1] != version:
        sys.exit(f"fun-transformer --version does not say {version}.")
    for name in ("train", "evaluate", "translate", "export", "push"):
        run(command, name, "--help", cwd=folder)
    run(command, *TRAINING.split(), cwd=folder)
    readme = read("README.md")
    for block in re.findall("```bash\n(.*?)```", readme, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("fun-transformer "):
                run(command, *shlex.split(line, comments=True)[1:], cwd=folder)
    code = next(
        block for block in re.findall("```python\n(.*?)```", readme, flags=re.DOTALL) if "runs/demo/model" in block
    )
    run(python, "-c", code, cwd=folder)
    run(command, "evaluate", "runs/demo", cwd=folder)
    card = (folder / "runs/demo/model/README.md").read_text(encoding="utf-8")
    snippet = re.findall("```python\n(.*?)```", card, flags=re.DOTALL)[0]
    run(python, "-c", snippet.replace("PATH_OR_NAME_OF_THIS_MODEL", "runs/demo/model"), cwd=folder)


def main() -> None:
    """Check everything, in the order of the docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="the tag that is to be released, such as v0.2.0")
    parser.add_argument("--only-versions", action="store_true", help="build and install nothing")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="leave wheel and source archive there")
    arguments = parser.parse_args()
    found = versions()
    if problems := version_problems(found, arguments.tag):
        sys.exit("\n".join(problems))
    version = str(found["pyproject.toml"])
    print(f"version {version}")
    if arguments.only_versions:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = fresh_environment(folder / "builder", "build")
        wheel, source = build(builder, folder)
        (folder / "use").mkdir()
        python = fresh_environment(folder / "environment", f"{wheel}[{EXTRAS}]")
        use(python, folder / "use", version)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for path in (wheel, source):
                path.replace(arguments.keep / path.name)
    print(f"{version} can be released.")


if __name__ == "__main__":
    main()
