from __future__ import annotations

import re

import pytest

from engines.errors import UsageError
from engines.registry import UrlSource, artefacts, find_artefact


def test_every_artefact_is_complete() -> None:
    known = artefacts()
    assert known
    for name, artefact in known.items():
        assert artefact.name == name
        assert len(bytes.fromhex(artefact.sha256)) == 32
        assert artefact.size > 0
        assert artefact.licence
        assert artefact.sources


@pytest.mark.parametrize("name", ["fastestdet", "ultraface"])
def test_files_of_repositories_are_taken_at_a_commit(name: str) -> None:
    (source,) = find_artefact(name).sources
    assert isinstance(source, UrlSource)
    owner = find_artefact(name).homepage.removeprefix("https://github.com/")
    assert re.match(rf"https://raw\.githubusercontent\.com/{owner}/[0-9a-f]{{40}}/.*\.onnx$", source.url)


def test_an_unknown_name_brings_the_closest() -> None:
    with pytest.raises(UsageError, match="did you mean 'centerface'"):
        find_artefact("centreface")
    with pytest.raises(UsageError, match=r"known are: .*centerface"):
        find_artefact("zzz")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a",
        "file:///a",
        "file://localhost/a",
        "http://127.0.0.1:1/a",
        "http://[::1]/a",
        "http://localhost/",
    ],
)
def test_accepted_urls(url: str) -> None:
    assert UrlSource(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a",
        "http://127.0.0.1.example.org/a",
        "ftp://a/b",
        "file://host/a",
        "https:///a",
        "a",
        "http://[x/",
    ],
)
def test_refused_urls(url: str) -> None:
    with pytest.raises(UsageError, match="https: or file:"):
        UrlSource(url)
