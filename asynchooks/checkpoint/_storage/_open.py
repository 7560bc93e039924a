"""Which kind of store serves a URL."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import fsspec
import fsspec.config

from asynchooks.checkpoint._manifest import check_name
from asynchooks.checkpoint._storage._errors import Guard, redact_url
from asynchooks.checkpoint._storage._fsspec import FsspecStore
from asynchooks.checkpoint._storage._local import LocalStore
from asynchooks.checkpoint._storage._object_options import client_options
from asynchooks.checkpoint._storage._process import ProcessStore, describe
from asynchooks.errors import ConfigError, UnknownOptionError, UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.checkpoint._storage._store import Store

__all__ = ["WriterChoice", "open_folder", "open_store"]

_SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "adl": "az",
}
_DEADLINE_S = 120.0

WriterChoice: TypeAlias = Literal["thread", "process"]
"""What writes large files."""


def open_store(
    url: str | os.PathLike[str] | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    deadline_s: float = _DEADLINE_S,
    writer: WriterChoice | None = None,
) -> Store:
    """The folder at `url`: a path, or any URL that fsspec knows. Opens no connection yet.

    `storage_options` are fsspec's for that protocol (for S3: ``key``, ``secret``, ``endpoint_url``, ...);
    what they leave open comes from the environment. `writer` says what writes large files: a "thread", or a
    "process" of its own, which costs its start and memory, and leaves the training its GIL; None takes what was
    measured to be best for the store. A `Store` is returned as it is.

    Raises:
        ConfigError: an option or protocol that does not exist, or a package that is missing; or
            ``writer="process"`` where the options or the file system live in this process alone.
    """
    if writer not in ("thread", "process", None):
        raise ConfigError(f'writer is "thread", "process" or None, not {writer!r}')
    if not isinstance(url, (str, os.PathLike)):
        return url
    text = os.fspath(url)
    options = dict(storage_options or {})
    store = _open_in_thread(text, options, deadline_s)
    if writer == "thread" or (writer is None and not _holds_the_gil(store)):
        return store
    description = describe(store.url if isinstance(store, LocalStore) else text, options)
    if description is not None:
        return ProcessStore(store, description, secrets=_secrets(text, options), deadline_s=deadline_s)
    if writer == "process":
        raise ConfigError(
            f"cannot write to {store.url} from another process: its file system or its options exist in this one "
            'alone. Pass options of plain values (strings, numbers, lists, dicts), or writer="thread".'
        )
    return store


def _holds_the_gil(store: Store) -> bool:
    """Whether writing to it slows other threads; measured by ``benchmarks/writer_choice.py``."""
    return isinstance(store, FsspecStore)


def _open_in_thread(text: str, options: dict[str, Any], deadline_s: float) -> Store:
    scheme, separator, _ = text.partition("://")
    if not separator or scheme in ("file", "local"):
        if options.keys() - {"auto_mkdir"}:
            raise UnknownOptionError(f"a local folder takes no storage options, but got {sorted(options)}")
        return LocalStore(text.partition("://")[2] if separator else text, deadline_s=deadline_s)
    if scheme in _SCHEMES and "::" not in text and find_spec("obstore") is not None:
        return _open_object_store(text, _SCHEMES[scheme], options, deadline_s)
    try:
        filesystem, folder = fsspec.core.url_to_fs(text, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"cannot open {redact_url(text)}: {error}") from error
    return FsspecStore(filesystem, folder, url=text, secrets=_secrets(text, options), deadline_s=deadline_s)


def open_folder(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> tuple[Store, str]:
    """The folder that holds the file at `url`, and the file's name."""
    text = os.fspath(url)
    if "://" not in text:
        text = os.path.abspath(text)  # noqa: PTH100 - a URL's folder must not be resolved through links
    folder, _, name = text.rstrip("/").rpartition("/")
    if folder.endswith(":/") or not name:
        raise UnsafePathError(f"{redact_url(text)} names no file in a folder.")
    return open_store(folder or "/", storage_options), check_name(name)


def _open_object_store(url: str, scheme: str, options: dict[str, Any], deadline_s: float) -> Store:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from asynchooks.checkpoint._storage._object import ObjectStore
    from asynchooks.checkpoint._storage._s3_uploads import S3Uploads

    parts = urlsplit(url)
    if not parts.netloc:
        raise UnsafePathError(f"{redact_url(url)} names no bucket.")
    merged = {**fsspec.config.conf.get(parts.scheme, {}), **options}
    prepared = client_options(scheme, merged, os.environ, deadline_s=deadline_s)
    target = (
        f"{parts.scheme.replace('s3a', 's3').replace('gcs', 'gs')}://{parts.netloc}{parts.path.rstrip('/')}"
    )
    try:
        client: Any = from_url(
            target,
            config=dict(prepared.config),  # type: ignore[call-overload] # typed per store, chosen at run time
            client_options=dict(prepared.client),
            retry_config=dict(prepared.retry),
        )
    except (BaseError, ValueError, TypeError) as error:
        text = str(error).partition("\n")[0]
        for secret in _secrets(url, merged):
            text = text.replace(secret, "***")
        if type(error).__name__ == "UnknownConfigurationKeyError":
            raise UnknownOptionError(
                f"cannot open {redact_url(url)}: {text}. Known are the options of s3fs, gcsfs or adlfs."
            ) from None  # the cause may show credentials
        raise ConfigError(f"cannot open {redact_url(url)}: {text}") from None
    uploads = S3Uploads(parts.netloc, parts.path, prepared.config) if scheme == "s3" else None
    return ObjectStore(client, url=redact_url(target), secrets=_secrets(url, merged), uploads=uploads)


def _secrets(url: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    password = urlsplit(url).password
    from_environment = [
        value
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        if len(value := os.environ.get(name, "")) >= 8
    ]
    return (*Guard.secrets_of(dict(options)), *([password] if password else []), *from_environment)
