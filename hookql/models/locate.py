"""Where a model's name leads: the demo, a folder, a GGUF file, or a repository on the hub."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from attrs import frozen

from hookql.errors import Diagnostic, ModelError, UsageError, listing
from hookql.models import hub


@frozen
class Checkpoint:
    """What `from_pretrained` is to be given: a folder or hub name, a GGUF file in it, a commit."""

    where: str
    gguf: str | None = None
    commit: str | None = None
    offline: bool = True
    has_tokenizer: bool = True

    @property
    def arguments(self) -> dict[str, object]:
        """The keyword arguments that say where and which, common to every `from_pretrained`."""
        arguments: dict[str, object] = {"local_files_only": self.offline}
        if self.gguf is not None:
            arguments["gguf_file"] = self.gguf
        if self.commit is not None:
            arguments["revision"] = self.commit
        return arguments


def locate(
    name: str, revision: str | None, allow_pickle: bool = False, weights: bool = True
) -> Checkpoint:
    """Find the checkpoint that a model's name means, without reading its weights.

    Without ``weights`` a folder need not hold any.

    Raises:
        ModelError: one diagnostic that says what stands in the way.
        UsageError: a revision of something that has none.
    """
    checkpoint = _local(name, allow_pickle, weights)
    if checkpoint is not None and revision is not None:
        message = f"`{name}` is not on the hub, and has no revisions"
        raise UsageError(Diagnostic("no-revisions", message))
    if checkpoint is not None:
        return checkpoint
    snapshot = hub.find_snapshot(name, revision)
    return Checkpoint(
        name,
        commit=snapshot.commit,
        offline=snapshot.offline,
        has_tokenizer=hub.has_tokenizer(snapshot),
    )


def _local(name: str, allow_pickle: bool, weights: bool) -> Checkpoint | None:
    """What a name means on this machine; None where only the hub can know it."""
    if name == "demo":
        from hookql.demo import model_path

        return _folder(Path(model_path()), name, False, weights)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, name, allow_pickle, weights)
    if name.lower().endswith(".gguf"):
        return _gguf(path, name)
    if path.exists():
        message = f"`{name}` is a file, but not a `.gguf` file"
        raise _error("not-a-model", message, help="give the folder that holds it and config.json")
    if _looks_like_path(name):
        raise _error("no-such-path", f"`{name}` does not exist")
    return None


def _folder(path: Path, name: str, allow_pickle: bool, weights: bool) -> Checkpoint:
    files = {file.name for file in path.iterdir()}
    if "config.json" not in files:
        ggufs = sorted(file for file in files if file.endswith(".gguf"))
        help = f"write `--model {path / ggufs[0]}`" if ggufs else None
        note = f"it holds: {listing(sorted(files), 6)}" if files else "it is empty"
        message = f"the folder `{name}` has no config.json: it is not a transformers model"
        raise _error("no-config", message, help=help, notes=(note,))
    if weights and "adapter_config.json" not in files and not any(map(_is_safe, files)):
        pickles = sorted(f for f in files if f.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5")))
        if pickles and not allow_pickle:
            raise pickle_only(name, pickles)
        help = "if it was fetched in part, fetch its weights too"
        if not pickles:
            raise _error("no-weights", f"the folder `{name}` has no model.safetensors", help=help)
    return Checkpoint(str(path), has_tokenizer=hub.folder_has_tokenizer(path))


def _is_safe(file: str) -> bool:
    return file.endswith((".safetensors", ".safetensors.index.json"))


def pickle_only(name: str, files: list[str]) -> ModelError:
    """A checkpoint whose weights are pickles: loading one can run any code that is in it."""
    message = f"`{name}` has its weights only as pickles, which can run code when they are read"
    help = "save it again as safetensors; if you trust whoever made it, add `--allow-pickle`"
    notes = (f"found: {listing(files, 4)}",) if files else ()
    return _error("pickled-weights", message, help=help, notes=notes)


def _gguf(path: Path, name: str) -> Checkpoint:
    if not path.exists():
        raise _error("no-such-path", f"`{name}` does not exist")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        message = f"`{name}` is not a GGUF file, whatever its name says"
        help = "fetch it again: this may be a pointer or a web page that was saved in its place"
        raise _error("not-gguf", message, help=help)
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            message = f"reading a GGUF file needs the package `{package}`"
            raise _error("missing-package", message, help="run `pip install 'hookql[gguf]'`")
    return Checkpoint(str(path.parent), gguf=path.name)


def _looks_like_path(name: str) -> bool:
    begins = name.startswith((".", "~", os.sep)) or name == ""
    return begins or "\\" in name or name.count("/") > 1 or name.endswith("/")


def _error(
    code: str, message: str, help: str | None = None, notes: tuple[str, ...] = ()
) -> ModelError:
    return ModelError(Diagnostic(code, message, help=help, notes=notes))
