"""The model hub: whether it can be reached, and which files of a repository are already here."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import urllib.parse
from pathlib import Path

from attrs import frozen

from hookql.errors import Diagnostic, ModelError

# Nobody waits longer than this to be told that there is no network.
_SECONDS = 4.0
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_HELP = (
    "give a local folder, or `demo`; or set HF_HOME to a cache that holds the model, "
    "or HF_ENDPOINT to a mirror"
)


@frozen
class Snapshot:
    """A repository at one commit. ``offline``: use what the cache has and ask nothing."""

    name: str
    commit: str | None
    offline: bool


def find_snapshot(name: str, revision: str | None) -> Snapshot:
    """Settle which commit a hub name means, asking the hub if it answers, else the cache.

    Raises:
        ModelError: unreachable and not cached; no such repository or revision; no access.
    """
    from huggingface_hub import hf_hub_download

    if not is_name(name):
        message = f"`{name}` is no file or folder, and cannot be the name of a model on the hub"
        help = "give a folder, a `.gguf` file, a name such as `owner/model`, or `demo`"
        raise ModelError(Diagnostic("bad-model-name", message, help=help))
    offline = _told_to_stay_offline()
    cached = _cached_commit(name, revision)
    if cached is not None and (cached == revision or offline or not can_connect()):
        return Snapshot(name, cached, offline=True)
    if offline:
        message = f"`{name}` is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it"
        raise ModelError(Diagnostic("hub-unreachable", message, help=_HELP))
    if not can_connect():
        raise unreachable(name)
    try:
        path = hf_hub_download(name, "config.json", revision=revision, etag_timeout=_SECONDS)
    except Exception as error:
        raise _refusal(name, revision, error) from error
    return Snapshot(name, Path(path).parent.name, offline=False)


def unreachable(name: str) -> ModelError:
    """The one message for a hub that does not answer."""
    where = urllib.parse.urlsplit(_endpoint()).hostname or _endpoint()
    message = f"the model hub cannot be reached to fetch `{name}`"
    return ModelError(
        Diagnostic("hub-unreachable", message, help=_HELP, notes=(f"no answer from {where}",))
    )


def files_of(where: str, commit: str | None, offline: bool) -> Path:
    """The folder that holds a checkpoint's config and, of a hub model, what else is here of it.

    The index of the weights is fetched, if there is one, so that it can be looked at.
    """
    if commit is None:
        return Path(where)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with contextlib.suppress(Exception):  # most have none, or the hub cannot be asked
        file = "model.safetensors.index.json"
        hf_hub_download(where, file, revision=commit, local_files_only=offline)
    config = try_to_load_from_cache(where, "config.json", revision=commit)
    return Path(config).parent if isinstance(config, str) else Path(where)


def has_tokenizer(snapshot: Snapshot) -> bool:
    """Whether the repository has a tokenizer's files; transformers makes up an empty one if not."""
    from huggingface_hub import file_exists, try_to_load_from_cache

    for file in _TOKENIZER_FILES:
        if isinstance(try_to_load_from_cache(snapshot.name, file, revision=snapshot.commit), str):
            return True
    if snapshot.offline:
        return False
    return any(file_exists(snapshot.name, f, revision=snapshot.commit) for f in _TOKENIZER_FILES)


def folder_has_tokenizer(folder: Path) -> bool:
    """The same for a local folder."""
    return any((folder / file).exists() for file in _TOKENIZER_FILES)


def is_name(name: str) -> bool:
    """Whether a text can be the name of a repository: ``gpt2``, ``owner/model``."""
    part = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
    return re.fullmatch(rf"(?:{part}/)?{part}", name) is not None


def can_connect() -> bool:
    """Whether the hub, or the proxy before it, answers one request within a few seconds.

    The hub's own client would try again and again for half a minute.
    """
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            get_session().head(_endpoint(), timeout=_SECONDS)
            answered.set()

    # In a thread, since looking up a name has no time limit of its own.
    attempt = threading.Thread(target=ask, daemon=True)
    attempt.start()
    attempt.join(_SECONDS)
    return answered.is_set()


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _told_to_stay_offline() -> bool:
    from huggingface_hub import constants

    set_now = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return set_now or bool(constants.HF_HUB_OFFLINE)


def _cached_commit(name: str, revision: str | None) -> str | None:
    """The commit whose config is in the local cache under that revision."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def _refusal(name: str, revision: str | None, error: Exception) -> ModelError:
    """What the hub's answer means for the user."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        message = f"access to `{name}` on the model hub is restricted"
        help = "ask for access on the model's page, then log in with `hf auth login`"
        return ModelError(Diagnostic("gated-model", message, help=help))
    if isinstance(error, errors.RevisionNotFoundError):
        message = f"`{name}` on the model hub has no revision `{revision}`"
        help = "a revision is a branch, a tag or a commit: they are listed on the model's page"
        return ModelError(Diagnostic("unknown-revision", message, help=help))
    if isinstance(error, errors.RepositoryNotFoundError):
        message = f"the model hub has no `{name}`, or it is private"
        help = "check the spelling, or log in with `hf auth login`"
        return ModelError(Diagnostic("unknown-model", message, help=help))
    if isinstance(error, errors.LocalEntryNotFoundError):  # how the hub's client says "no answer"
        return unreachable(name)
    if isinstance(error, errors.EntryNotFoundError):
        message = f"`{name}` on the model hub has no config.json: it is not a transformers model"
        help = "if it holds a `.gguf` file, download that and give its path"
        return ModelError(Diagnostic("no-config", message, help=help))
    return unreachable(name)
