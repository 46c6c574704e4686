"""Certificates are looked at where we say so, and what FFmpeg would not look at is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from engines.errors import SourceError, UsageError
from stream.address import Address, input_address, output_address
from stream.sinks.gst import GstServerSink
from stream.sinks.network import NetworkSink, SinkOptions
from stream.sources.connection import AvConnection, Peer
from stream.sources.live import LiveOptions, LiveSource
from stream.tls import check_sink, check_source, tls_options
from tests.gstreamer import need
from tests.media import pictures, write_clip
from tests.stream.certificates import Authority, Secret
from tests.stream.sinks.feeding import INFO, Feeding

HERE = "IP:127.0.0.1"
PEER = Peer(connect_timeout=5, read_timeout=5)
INSECURE = Peer(connect_timeout=5, read_timeout=5, insecure=True)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The only one that this machine trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    write_clip(tmp_path / "in.ts", pictures(5), codec="mpeg2video", rate=Fraction(25), gop=1)
    return (tmp_path / "in.ts").read_bytes()


def certificate(authority: Authority, kind: str) -> tuple[Path, Path]:
    if kind == "self-signed":
        return authority.self_signed(HERE)
    return authority.signed(HERE if kind == "right" else "DNS:other.local")


@pytest.mark.usefixtures("authority")
def test_options_are_for_those_who_have_a_certificate(authority: Authority) -> None:
    assert tls_options(input_address("rtsp://camera/1"), False) == {}
    for scheme in ("rtsps", "https", "rtmps"):
        address = input_address(f"{scheme}://camera/1")
        assert tls_options(address, False) == {"tls_verify": "1", "ca_file": str(authority.file)}
        assert tls_options(address, True)["tls_verify"] == "0"


@pytest.mark.parametrize("kind", ["right", "self-signed", "wrong-name"])
def test_a_download_needs_the_right_certificate(kind: str, authority: Authority, clip: bytes) -> None:
    with Secret(certificate(authority, kind), {"/in.ts": clip}) as server:
        address = input_address(f"https://127.0.0.1:{server.port}/in.ts")
        if kind == "right":
            AvConnection(address, PEER).close()
        else:
            with pytest.raises(SourceError, match="cannot be opened"):
                AvConnection(address, PEER)
            assert server.heard == []
        AvConnection(address, INSECURE).close()


def test_rtmp_is_refused_since_ffmpeg_looks_at_no_certificate() -> None:
    address = output_address("rtmps://u:s3cret@server/live/k3y")
    with pytest.raises(UsageError, match="use --backend gst, which does, or --insecure") as caught:
        check_sink(address, False)
    assert "s3cret" not in str(caught.value)
    assert "k3y" not in str(caught.value)
    check_sink(address, True)
    check_sink(output_address("rtmp://server/live"), False)
    check_sink(output_address("rtsps://server/live"), False)


def test_a_playlist_is_refused_by_its_name() -> None:
    address = input_address("https://u:s3cret@server/live.m3u8?x")
    with pytest.raises(UsageError, match="playlist's segments; use --backend gst") as caught:
        check_source(address, False)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError, match="playlist's segments"):
        AvConnection(address, PEER)
    check_source(address, True)
    check_source(input_address("http://server/live.m3u8"), False)


def test_a_playlist_is_refused_whatever_its_name(authority: Authority, clip: bytes) -> None:
    """The segments lie on a server whose certificate is for another one."""
    with Secret(authority.signed("DNS:other.local"), {"/1.ts": clip}) as other:
        playlist = (
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.2,\n"
            f"https://127.0.0.1:{other.port}/1.ts\n#EXT-X-ENDLIST\n"
        ).encode()
        with Secret(authority.signed(HERE), {"/live": playlist, "/live.m3u8": playlist}) as server:
            at = f"https://127.0.0.1:{server.port}"
            with pytest.raises(SourceError, match="may be a playlist: FFmpeg does not verify"):
                AvConnection(input_address(f"{at}/live"), PEER)
            assert server.heard
            assert other.heard == []
            AvConnection(input_address(f"{at}/live.m3u8"), INSECURE).close()
            assert other.heard


@pytest.mark.parametrize("backend", ["av", "gst"])
@pytest.mark.parametrize("scheme", ["rtsps", "rtmps", "https"])
@pytest.mark.parametrize("kind", ["right", "self-signed", "wrong-name"])
def test_a_camera_hears_nothing_before_its_certificate_is_right(
    kind: str, scheme: str, backend: str, authority: Authority
) -> None:
    if backend == "gst":
        need("rtspsrc", "rtmp2src", "souphttpsrc")
    name = f"{scheme}://user:s3cret@127.0.0.1"
    with Secret(certificate(authority, kind)) as server:
        options = LiveOptions(peer=PEER, attempts=0, backend="gst" if backend == "gst" else "av")
        with pytest.raises(SourceError):
            LiveSource(input_address(f"{name}:{server.port}/live/x"), options)
        # It hangs up on everybody, but first hears those who take its certificate.
        assert bool(server.heard) == (kind == "right")
        with pytest.raises(SourceError):
            LiveSource(input_address(f"{name}:{server.port}/live/x"), replace(options, peer=INSECURE))
        assert server.heard


@pytest.mark.parametrize(("scheme", "backend"), [("rtsps", "av"), ("rtsps", "gst"), ("rtmps", "gst")])
@pytest.mark.parametrize("kind", ["right", "self-signed", "wrong-name"])
def test_a_server_hears_nothing_before_its_certificate_is_right(
    kind: str, scheme: str, backend: str, authority: Authority
) -> None:
    if backend == "gst":
        need("rtspclientsink", "rtmp2sink", "h264parse")
    url = f"{scheme}://user:s3cret@127.0.0.1"
    with Secret(certificate(authority, kind)) as server:
        sink = sink_to(output_address(f"{url}:{server.port}/live/x"), backend)
        Feeding(sink).run(20)
        sink.abort()
        assert bool(server.heard) == (kind == "right")
        sink = sink_to(output_address(f"{url}:{server.port}/live/x"), backend, insecure=True)
        Feeding(sink).run(20)
        sink.abort()
        assert server.heard


def sink_to(address: Address, backend: str, *, insecure: bool = False) -> NetworkSink | GstServerSink:
    options = SinkOptions(timeout=5.0, longest_wait=0.2, insecure=insecure)
    return (NetworkSink if backend == "av" else GstServerSink)(address, INFO, options)


def test_gstreamer_says_that_authorities_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("rtspclientsink", "h264parse")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE=.*nothing\.pem names no file of certificates"):
        sink_to(output_address("rtsps://127.0.0.1:9/x"), "gst")
