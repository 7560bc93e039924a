"""fsspec's words for object stores, in obstore's."""

from pathlib import Path
from typing import Any

import pytest

from asynchooks.checkpoint._storage._object_options import client_options
from asynchooks.errors import ConfigError

LOOPBACK = "http://127.0.0.1:9000"


def config(
    options: dict[str, Any], environ: dict[str, str] | None = None, scheme: str = "s3"
) -> dict[str, Any]:
    environ = {"AWS_ACCESS_KEY_ID": "k", "HOME": "/nowhere"} if environ is None else environ
    return dict(client_options(scheme, options, environ, deadline_s=60).config)


@pytest.mark.parametrize(
    "options",
    [
        {
            "key": "k",
            "secret": "s",
            "token": "t",
            "endpoint_url": LOOPBACK,
            "client_kwargs": {"region_name": "r"},
        },
        {
            "username": "k",
            "password": "s",
            "token": "t",
            "client_kwargs": {"endpoint_url": LOOPBACK, "region_name": "r"},
        },
        {
            "access_key_id": "k",
            "secret_access_key": "s",
            "session_token": "t",
            "endpoint": LOOPBACK,
            "region": "r",
        },
        {
            "client_kwargs": {
                "aws_access_key_id": "k",
                "aws_secret_access_key": "s",
                "aws_session_token": "t",
                "endpoint_url": LOOPBACK,
                "region_name": "r",
            }
        },
    ],
)
def test_the_ways_to_say_the_same_to_s3(options: dict[str, Any]) -> None:
    assert config(options) == {
        "access_key_id": "k",
        "secret_access_key": "s",
        "session_token": "t",
        "endpoint": LOOPBACK,
        "region": "r",
        "unsigned_payload": "true",
        "virtual_hosted_style_request": "false",
    }


def test_the_environment_gives_the_endpoint_only_when_the_options_do_not() -> None:
    environ = {
        "AWS_ENDPOINT_URL": "https://general",
        "HOME": "/nowhere",
        "AWS_ENDPOINT_URL_S3": "https://special",
    }

    assert config({}, environ)["endpoint"] == "https://special"
    assert config({"endpoint_url": "https://mine"}, environ)["endpoint"] == "https://mine"


def test_anonymous_access_and_an_explicit_choice_of_signing() -> None:
    assert config({"anon": True})["skip_signature"] == "true"
    assert config({"unsigned_payload": False})["unsigned_payload"] == "false"


def test_payloads_are_signed_where_nothing_else_guards_them() -> None:
    options = {"endpoint_url": "http://store.lan:9000", "allow_http": True}

    assert "unsigned_payload" not in config(options)


@pytest.mark.parametrize(
    ("options", "environ"),
    [({"allow_http": True}, {}), ({"use_ssl": False}, {}), ({}, {"AWS_ALLOW_HTTP": "true"})],
)
def test_plain_http_elsewhere_must_be_allowed(options: dict[str, Any], environ: dict[str, str]) -> None:
    endpoint = {"endpoint_url": "http://store.lan:9000"}

    assert client_options("s3", options | endpoint, environ, deadline_s=60).client["allow_http"]
    with pytest.raises(ConfigError, match="allow_http"):
        config(endpoint)


def test_other_stores_have_their_own_words() -> None:
    assert config({"token": "key.json"}, scheme="gs") == {"service_account_path": "key.json"}
    assert config({"account_name": "a", "sas_token": "s"}, scheme="az") == {
        "account_name": "a",
        "sas_key": "s",
    }


def test_options_never_show_credentials() -> None:
    assert "hidden" not in repr(client_options("s3", {"secret": "hidden"}, {}, deadline_s=60))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = ds%x\n"
        "[lab]\naws_access_key_id = l\naws_secret_access_key = ls\naws_session_token = lt\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = eu-west-1\n[profile sso]\nsso_session = x\n"
    )
    return {"HOME": str(tmp_path)}


def test_the_default_profile_gives_keys_and_region(home: dict[str, str]) -> None:
    found = config({}, home)

    assert (found["access_key_id"], found["secret_access_key"], found["region"]) == ("d", "ds%x", "eu-west-1")


@pytest.mark.parametrize(("options", "environ"), [({"profile": "lab"}, {}), ({}, {"AWS_PROFILE": "lab"})])
def test_a_named_profile_gives_its_keys(
    home: dict[str, str], options: dict[str, str], environ: dict[str, str]
) -> None:
    found = config(options, home | environ)

    assert (found["access_key_id"], found["session_token"]) == ("l", "lt")


def test_explicit_keys_and_the_environment_come_before_the_default_profile(home: dict[str, str]) -> None:
    assert config({"key": "k", "secret": "s"}, home)["access_key_id"] == "k"
    assert "access_key_id" not in config({}, home | {"AWS_ACCESS_KEY_ID": "e"})
    assert "access_key_id" not in config({"anon": True}, home)


def test_a_profile_without_keys_says_how_to_export_them(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="export-credentials --profile sso"):
        config({"profile": "sso"}, home)
