"""Where a model is that a user names: in a folder, in that of a run, on the Hub, or downloaded earlier."""

from pathlib import Path

HUB_SECONDS = 10  # without an answer, the Hub counts as not there


def find_model(name: str) -> str:
    """Return where a model is loaded from: its folder, that of a run, its name on the Hub, or an earlier download.

    Raises:
        ValueError: The name is empty.
        OSError: There is no such folder, and the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if not name.strip():
        raise ValueError("The name of a model is empty. Name a model folder, a run, or a model on the Hub.")
    path = Path(name)
    if (path / "model" / "config.json").is_file() and not (path / "config.json").is_file():
        return str(path / "model")  # of a finished run
    if path.exists() and not (path / "config.json").is_file():
        raise FileNotFoundError(f"{name} holds no config.json: it is not a model folder.")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no model folder {name}.")
    if path.exists() or hub_answers(name):
        return name
    try:
        return snapshot_download(name, local_files_only=True)
    except OSError as error:
        raise OSError(
            f"There is no folder {name} here, and the Hub could not be reached for a model {name}; nothing of it was "
            "downloaded earlier. Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
        ) from error


def hub_answers(name: str) -> bool:
    """Whether the Hub can be asked for a model; transformers would try six times to find out."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HfHubHTTPError as error:
        return error.response.status_code < 500
    except Exception:  # of the HTTP library, whose name depends on the version of huggingface_hub
        return False
    return True
