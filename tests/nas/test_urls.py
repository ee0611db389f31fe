"""What is shown of an address holds none of its secrets."""

import pytest

from nas.errors import StudyError
from nas.storage import open_storage
from nas.urls import shown, without_secrets

URLS = [
    ("postgresql://nas:sesame@db/nas", "postgresql://nas@db/nas"),
    ("postgresql://db/nas?user=nas&password=sesame", "postgresql://db/nas?user=nas"),
    ("postgresql://nas:p@sesame@db/nas", "postgresql://nas@db/nas"),
    ("postgresql://nas:a/sesame@db/nas", "postgresql://nas@db/nas"),
    ("postgresql://nas:sesame", "postgresql://nas"),
    ("sftp://u:sesame@host:22/search", "sftp://u@host:22/search"),
    ("s3://bucket/search?access_key_id=sesame&region=x", "s3://bucket/search?region=x"),
    ("grpc://host:13000", "grpc://host:13000"),
    ("sftp://host:22/mail@home", "sftp://host:22/mail@home"),
    ("file:///shared/search", "file:///shared/search"),
    ("/shared/search", "/shared/search"),
    ("sqlite:///study.db", "sqlite:///study.db"),
]


@pytest.mark.parametrize(("url", "without"), URLS)
def test_passwords_and_keys_are_left_out_and_nothing_else(url: str, without: str) -> None:
    assert shown(url) == without
    assert shown(without) == without
    assert "sesame" not in without_secrets(f"cannot open {url}", url)


def test_a_secret_is_found_as_it_is_meant_and_as_it_is_written() -> None:
    assert without_secrets("a/b and a%2Fb", "sftp://u:a%2Fb@host/") == "*** and ***"


@pytest.mark.parametrize("url", [one for one, _ in URLS[2:5:2]])
def test_an_address_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StudyError, match=r"must be a URL such as .* @ is written %40") as told:
        open_storage(url)
    assert "sesame" not in str(told.value)
