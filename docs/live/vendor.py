"""ONNX Runtime Web from npm, for the page to bring along: two files of 33 MB, the larger one compressed."""

import base64
import gzip
import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path

VERSION = "1.30.0"
SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's `integrity`
)
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")

LIBRARY, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


def download(cache: Path) -> bytes:
    """Return the package as npm has it, from the cache if it was there before.

    Args:
        cache: The folder that keeps it.

    Raises:
        ValueError: It cannot be had, or it is another one than it was.
    """
    file = cache / f"onnxruntime-web-{VERSION}.tgz"
    if file.is_file():
        package = file.read_bytes()
    else:
        url = f"{REGISTRY}/onnxruntime-web/-/{file.name}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                package = response.read()
        except OSError as error:
            raise ValueError(
                f"{url} cannot be loaded ({error}). Run this where npm's registry can be reached, set "
                f"NPM_CONFIG_REGISTRY to a mirror of it, or put the file into {cache}."
            ) from error
    if base64.b64encode(hashlib.sha512(package).digest()).decode() != SHA512:
        raise ValueError(f"{file.name} is not the package that it was: its SHA-512 differs. Delete {file}.")
    cache.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        part = file.with_suffix(".part")
        part.write_bytes(package)
        part.replace(file)
    return package


def write_runtime(output: Path, cache: Path) -> None:
    """Write the library and its WebAssembly, the latter compressed, since few servers do it.

    Args:
        output: The folder of the two files.
        cache: The folder that keeps the package.
    """
    with tarfile.open(fileobj=io.BytesIO(download(cache))) as package:
        files = {}
        for name in (LIBRARY, WASM):
            file = package.extractfile(f"package/dist/{name}")
            assert file is not None  # the checksum says so
            files[name] = file.read()
    output.mkdir(parents=True, exist_ok=True)
    (output / LIBRARY).write_bytes(files[LIBRARY])
    (output / f"{WASM}.gz").write_bytes(gzip.compress(files[WASM], 9, mtime=0))
