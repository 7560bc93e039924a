"""fsspec's options for object stores, in obstore's words.

Decides how what users of s3fs, gcsfs and adlfs write maps to obstore's configuration. Pure: the environment
is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asynchooks.checkpoint._storage._aws_profile import profile_options
from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClientOptions", "client_options"]

_RENAMED = {
    # s3fs
    "key": "access_key_id",
    "username": "access_key_id",
    "secret": "secret_access_key",
    "password": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "anon": "skip_signature",
}
_RENAMED_GCS = {"token": "service_account_path", "endpoint_url": "base_url", "anon": "skip_signature"}
_RENAMED_AZURE = {"sas_token": "sas_key", "anon": "skip_signature", "endpoint_url": "endpoint"}
_WITHOUT_MEANING = {
    # options of the fsspec interface that concern its own caches and loops
    "asynchronous",
    "cache_regions",
    "config_kwargs",
    "default_block_size",
    "default_cache_type",
    "default_fill_cache",
    "fixed_upload_size",
    "loop",
    "max_concurrency",
    "project",
    "requester_pays",
    "s3_additional_kwargs",
    "skip_instance_cache",
    "use_listings_cache",
    "version_aware",
}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What `obstore.store.from_url` takes."""

    config: Mapping[str, Any] = field(repr=False)  # holds credentials
    client: Mapping[str, Any] = field(repr=False)
    retry: Mapping[str, Any]


def client_options(
    scheme: str, options: Mapping[str, Any], environ: Mapping[str, str], *, deadline_s: float
) -> ClientOptions:
    """Translate fsspec's options; obstore's own names pass, and the ``AWS_*`` environment fills the gaps.

    Raises:
        ConfigError: plain http to another machine without ``allow_http=True``.
    """
    renamed = {"gs": _RENAMED_GCS, "az": _RENAMED_AZURE}.get(scheme, _RENAMED)
    flat = dict(options)
    extra = flat.pop("client_kwargs", None) or {}
    verify = extra.pop("verify", True) if isinstance(extra := dict(extra), dict) else True
    use_ssl = flat.pop("use_ssl", None)
    allow_http = flat.pop("allow_http", None)
    config: dict[str, Any] = {}
    for key, value in {**extra, **flat}.items():
        if value is not None and key not in _WITHOUT_MEANING:
            config[renamed.get(key, key)] = _as_text(value)
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=min(10.0, deadline_s)),
        "read_timeout": timedelta(seconds=deadline_s / 3),
        "timeout": timedelta(days=1),  # of a whole request; how long a download may take depends on its size
    }
    if verify is False:
        client["allow_invalid_certificates"] = True
    if scheme == "s3":
        profile = config.pop("profile", None)
        if not config.keys() & {"access_key_id", "skip_signature"}:
            config = {**profile_options(profile, environ), **config}
        _complete_s3(config, environ)
    endpoint = str(config.get("endpoint") or config.get("base_url") or "")
    if endpoint.startswith("http://"):
        if not (
            _is_loopback(endpoint) or allow_http or use_ssl is False or _is_set(environ.get("AWS_ALLOW_HTTP"))
        ):
            raise ConfigError(
                f"the endpoint {endpoint!r} is not encrypted: the data would be readable on the way. "
                "Use https, or pass allow_http=True in the storage options."
            )
        client["allow_http"] = True
    # the client gives up before the caller's deadline, since its error says more: its last wait included
    retry = {
        "max_retries": 10,
        "retry_timeout": timedelta(seconds=deadline_s * 2 / 3),
        "backoff": {
            "init_backoff": timedelta(seconds=0.1),
            "max_backoff": timedelta(seconds=min(15.0, deadline_s / 6)),
            "base": 2,
        },
    }
    return ClientOptions(config, client, retry)


def _complete_s3(config: dict[str, Any], environ: Mapping[str, str]) -> None:
    if "endpoint" not in config:
        found = next((environ[name] for name in _ENDPOINT_VARIABLES if environ.get(name)), None)
        if found:
            config["endpoint"] = found
    if "endpoint" in config:
        config.setdefault("virtual_hosted_style_request", "false")
    endpoint = str(config.get("endpoint", "https://"))
    if endpoint.startswith("https://") or _is_loopback(endpoint):
        config.setdefault("unsigned_payload", "true")  # TLS guards it; hashing it costs 1.2 s per 256 MB


def _as_text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _is_loopback(endpoint: str) -> bool:
    return urlsplit(endpoint).hostname in _LOOPBACK


def _is_set(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes")
