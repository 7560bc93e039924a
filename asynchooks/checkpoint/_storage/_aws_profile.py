"""Keys and region of a profile in the AWS command line's files, which obstore does not read.

Decides for static keys only. Single sign-on and assumed roles need their program: the error says how to
export what they give.
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

from asynchooks.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["profile_options"]

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_OTHER_SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def profile_options(profile: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The profile's keys and region; nothing when none is asked for and the environment has another source.

    Raises:
        ConfigError: the profile that was asked for has no keys.
    """
    if profile is None and any(environ.get(name) for name in _OTHER_SOURCES):
        return {}
    wanted = profile or environ.get("AWS_PROFILE")
    name = wanted or "default"
    keys = _section(environ.get("AWS_SHARED_CREDENTIALS_FILE"), "credentials", name, environ)
    settings = _section(environ.get("AWS_CONFIG_FILE"), "config", name, environ)
    found = {
        ours: value for theirs, ours in _KEYS.items() if (value := keys.get(theirs) or settings.get(theirs))
    }
    if wanted and "access_key_id" not in found:
        raise ConfigError(
            f"the AWS profile {name!r} has no static keys. For single sign-on and roles, export what they give: "
            f"eval $(aws configure export-credentials --profile {name} --format env)"
        )
    if found and "region" in settings and not environ.get("AWS_REGION"):
        found["region"] = settings["region"]
    return found


def _section(given: str | None, file: str, name: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    path = Path(given) if given else Path(environ.get("HOME", "/")) / ".aws" / file
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text())
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    section = f"profile {name}" if file == "config" and name != "default" else name
    return dict(parser[section]) if parser.has_section(section) else {}
