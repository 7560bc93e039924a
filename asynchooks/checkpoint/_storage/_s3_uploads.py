"""The unfinished multipart uploads of an S3 prefix: to see them and to abort them.

Decides for botocore, which signs these two calls; obstore has neither of them and signs no query. It is there where
boto3 or s3fs is; without it nothing is listed. Knows only what S3 tells: a key, a time, an upload id.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint._storage._store import Upload
from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["S3Uploads"]

_NAMES = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "endpoint": "endpoint_url",
    "region": "region_name",
}
_GIVE_UP_S = 20


class S3Uploads:
    """What was begun under a prefix of a bucket and is not complete.

    Args:
        bucket: its name.
        prefix: the folder's keys begin with it.
        config: obstore's options for the bucket; what they leave open, botocore finds by its own chain.
    """

    def __init__(self, bucket: str, prefix: str, config: Mapping[str, Any]) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._config = config

    def inside(self, name: str) -> S3Uploads:
        """The same for the folder of that name in this one."""
        return S3Uploads(self._bucket, self._prefix + name, self._config)

    def unfinished(self, *, needed: bool) -> Iterator[Upload]:
        """Those directly in the folder; none where botocore is missing.

        Raises:
            ConfigError: it is missing, and `needed`.
        """
        if find_spec("botocore") is None:
            if needed:
                raise ConfigError(
                    "to list unfinished uploads, botocore is needed; install it with: pip install boto3"
                )
            return
        pages = self._client().get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"):
            for upload in page.get("Uploads", ()):
                name = upload["Key"].removeprefix(self._prefix)
                if "/" not in name:  # not every server knows the delimiter
                    yield Upload(name, upload["Initiated"].timestamp(), upload["UploadId"])

    def abort(self, upload: Upload) -> None:
        """Abort one; nothing happens when it is gone already."""
        client = self._client()
        try:
            client.abort_multipart_upload(
                Bucket=self._bucket, Key=self._prefix + upload.name, UploadId=upload.upload_id
            )
        except client.exceptions.NoSuchUpload:
            return

    def _client(self) -> Any:
        import botocore.session
        from botocore.config import Config

        given = {theirs: self._config[ours] for ours, theirs in _NAMES.items() if ours in self._config}
        style = "path" if "endpoint" in self._config else "auto"
        config = Config(
            connect_timeout=_GIVE_UP_S,
            read_timeout=_GIVE_UP_S,
            retries={"total_max_attempts": 4, "mode": "standard"},
            s3={"addressing_style": style},
        )
        given.setdefault("region_name", "us-east-1")
        return botocore.session.Session().create_client("s3", config=config, **given)
