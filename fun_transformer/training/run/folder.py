"""The folder of a run: what may be written into it, what it is started with."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...files import remove_folder, write_atomically
from ..data.sources import find_shards
from ..recipe.arguments import AUTO, SPLITS, RunArguments
from ..recipe.names import known_arguments
from ..recipe.reading import read_recipe
from .checkpoints import checkpoint_folders, find_checkpoint, step_folders, step_of
from .environment import describe_environment
from .lock import LOCK

REPLACED = ("run.json", "recipe.yaml")  # by `write_start`


def contents(folder: Path) -> list[Path]:
    """List what is in a folder, sorted, without the lock of the run that works there."""
    return sorted(path for path in folder.iterdir() if path.name != LOCK)


def is_run(folder: Path) -> bool:
    """Tell whether a run made this folder: its run.json is the first file to come, and stays."""
    return (folder / "run.json").exists() or [path.name for path in contents(folder)] == [".run.json.partial"]


def is_finished(folder: Path) -> bool:
    """Tell whether a run has written its model into this folder."""
    written = any((folder / "model" / name).is_file() for name in ("config.json", "adapter_config.json"))
    return (folder / "run.json").exists() and written


def died_young(folder: Path) -> bool:
    """Tell whether a run ended before its first checkpoint, so that nothing is lost where it begins again.

    A model of an evaluation may have come before that. After the first checkpoint was due, there was one.
    """
    if not is_run(folder) or (folder / "model").exists() or list((folder / "checkpoints").glob("[!.]*")):
        return False
    recipe, models = folder / "recipe.yaml", step_folders(folder / "models")
    if not models or not recipe.is_file():
        return True
    first = read_recipe(str(recipe), known_arguments(), warns=False).get("training.save_steps", AUTO)
    return first == AUTO or step_of(models[-1]) <= int(first)


def empty_run(folder: Path) -> None:
    """Remove what a run has written, the model first: without checkpoints beside it, it would look finished.

    The files that mark a run and say how to start it again stay until the next run replaces them.
    """
    for path in sorted(contents(folder), key=lambda path: path.name != "model"):
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        elif path.name not in REPLACED:
            path.unlink(missing_ok=True)


def name_output_dir(arguments: RunArguments) -> Path:
    """Name the run's folder.

    Raises:
        ValueError: When the recipe names none, or a file.
    """
    if not arguments.output_dir:
        raise ValueError("output_dir is missing: say where the run writes, as in --output_dir runs/NAME.")
    output_dir = Path(arguments.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"output_dir={output_dir} is a file. Name a folder.")
    return output_dir


def prepare_output_dir(arguments: RunArguments) -> Path | None:
    """Make sure that nothing is overwritten by mistake; nothing is removed yet.

    Returns:
        The checkpoint to go on from.

    Raises:
        ValueError: When something is in the run's folder and the recipe does not say what to do, or the run reads
            something there that would be removed.
    """
    output_dir = name_output_dir(arguments)
    if arguments.resume is True and is_finished(output_dir) and not checkpoint_folders(output_dir):
        raise ValueError(
            f"The run in {output_dir} is finished, its model is {output_dir / 'model'}, and its checkpoints are gone: "
            "there is nothing to go on from. Train again with --overwrite and without --resume, or in another folder."
        )
    checkpoint = find_checkpoint(output_dir, arguments.resume)
    if checkpoint is None and output_dir.exists() and contents(output_dir):
        if not arguments.overwrite and not (arguments.resume == "auto" and died_young(output_dir)):
            hint = "" if arguments.resume == "no" else ", and there is no checkpoint to go on from"
            way = "Go on with --resume, empty" if arguments.resume == "no" else "Empty"
            raise ValueError(
                f"output_dir={output_dir} is not empty{hint}. {way} it with --overwrite, or name another folder."
            )
        if not is_run(output_dir):
            raise ValueError(
                f"output_dir={output_dir} holds something that is not a training run, so --overwrite does not empty "
                "it. Empty it yourself, or name another folder."
            )
        check_inputs(arguments, output_dir)
    return checkpoint


def check_inputs(arguments: RunArguments, output_dir: Path) -> None:
    """Refuse to empty a folder that holds what the run reads; the run's own recipe stays whole there.

    Raises:
        ValueError: Naming the argument and the file.
    """
    inside = (output_dir.absolute(), output_dir.resolve())
    for name, path in named_inputs(arguments):  # names of the Hub, too, where no file has such a name
        for found in (Path(path).absolute(), Path(path).resolve()):
            is_own = name == "recipe" and found.name == "recipe.yaml" and found.parent in inside
            if found.exists() and not is_own and any(found.is_relative_to(folder) for folder in inside):
                raise ValueError(
                    f"{name}={path} is inside output_dir={output_dir}, which would be emptied. Move it to another "
                    "place, or name another output_dir."
                )


def named_inputs(arguments: RunArguments) -> Iterator[tuple[str, str]]:
    """Yield the name and path of every file and folder that a recipe reads."""
    training = arguments.training
    for split in SPLITS:
        for corpus in getattr(arguments.data, split).corpora:
            yield from ((f"data.{split}", path) for path in (corpus.source, corpus.target) if path)
            yield from ((f"data.{split}", path) for path in (find_shards(corpus.dataset) if corpus.dataset else ()))
    yield from (("training.init_from", path) for path in training.init_from)
    yield from (("plugins", path) for path in arguments.plugins)
    single = {
        "model.config": arguments.model.get("config"),
        "model.path": arguments.model.get("path"),
        "tokenizer.path": arguments.tokenizer.path,
        "training.source_vectors": training.source_vectors,
        "training.target_vectors": training.target_vectors,
        "generation.config": arguments.generation.config,
        "recipe": arguments.recipe,
    }
    yield from ((name, path) for name, path in single.items() if path)


def write_start(output_dir: Path, arguments: RunArguments, row_report: dict[str, Any]) -> None:
    """Write what the run was started with: `recipe.yaml` runs it again, `run.json` says on what."""
    facts = describe_environment() | {"working_directory": str(Path.cwd())}  # the recipe's data paths start there
    write_atomically(output_dir / "run.json", json.dumps(facts, indent=1))  # first: it marks a run
    write_recipe(output_dir, arguments)
    write_atomically(output_dir / "rows.json", json.dumps(row_report, indent=1, ensure_ascii=False))


def start_folder(output_dir: Path) -> str:
    """Return the working directory in which a run was started; this one where an older version did not note it."""
    try:
        facts = json.loads((output_dir / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    return facts.get("working_directory", str(Path.cwd()))


def write_recipe(output_dir: Path, arguments: RunArguments) -> None:
    """Write the recipe of a run; running it again must neither empty the run nor go on with it."""
    recipe = dataclasses.replace(arguments, resume="no", overwrite=False, allow_changes=False)
    write_atomically(output_dir / "recipe.yaml", recipe.to_yaml())
