from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import UsageError
from stream.config import RunSettings
from stream.service.serve_config import ServeConfig, SupervisorConfig, haste, make_stream, read_serve_config

ENVIRONMENT = {"PASSWORD": "geheim99"}
TWO = "[streams.a]\ninput='rtsp://c/a'\noutput='{}'\n[streams.b]\ninput='rtsp://c/b'\noutput='{}'\n"
PORTS = TWO.format("rtsp-server://0.0.0.0:8554/a", "rtsp-server://me:geheim@:{}/b")
STREAM = '[streams.front]\ninput = "rtsp://camera/1"\noutput = "front.mkv"\noverwrite = true\n'


def read(folder: Path, text: str) -> ServeConfig:
    path = folder / "config.toml"
    path.write_text(text)
    return read_serve_config(path, ENVIRONMENT)


def test_streams_have_their_own_settings_and_the_defaults(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        [defaults]
        preset = "faces"
        hold = 3
        when-lost = "hold"
        overwrite = true
        [streams.front]
        input = "rtsp://camera/1"
        output = ["rtsp://server/1", "front.mkv"]
        hold = 5
        [streams.back-door]
        input = "/dev/video0"
        output = "/videos/back.mkv"
        """,
    )
    assert list(config.streams) == ["front", "back-door"]
    front, back = config.streams.values()
    assert front.settings == RunSettings(preset="faces", hold=5, when_lost="hold", overwrite=True)
    assert back.settings == RunSettings(preset="faces", hold=3, when_lost="hold", overwrite=True)
    assert [sink.text for sink in front.sinks] == ["rtsp://server/1", str(tmp_path / "front.mkv")]
    assert back.source.text == "/dev/video0"
    assert back.sinks[0].text == "/videos/back.mkv"
    assert config.supervisor == SupervisorConfig()
    assert config.status is None


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "token").write_text("0123456789abcdef0123\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc" / "config.toml").write_text(
        """
        [defaults]
        overwrite = true
        report = "out/report.json"
        detector = ["mine/detector", "centerface"]
        engine = ["person=mine/generator"]
        [status]
        token_file = "token"
        allow_paths = ["videos", "/dev/video0"]
        [streams.a]
        input = "in.mp4"
        output = ["../out.mkv", "segments/"]
        """
    )
    config = read_serve_config(Path("etc/config.toml"), {})
    stream, folder = config.streams["a"], tmp_path / "etc"
    assert stream.source.text == str(folder / "in.mp4")
    assert [sink.text for sink in stream.sinks] == [str(folder / "../out.mkv"), f"{folder}/segments/"]
    assert stream.settings.report == folder / "out/report.json"
    assert stream.settings.detector == (str(folder / "mine/detector"), "centerface")
    assert stream.settings.engine == {"person": folder / "mine/generator"}
    assert config.status is not None
    assert config.status.token() == "0123456789abcdef0123"
    assert config.status.allow_paths == (folder / "videos", Path("/dev/video0"))


def test_settings_survive_the_way_to_the_worker(tmp_path: Path) -> None:
    given = [
        'mask-colour = "#102030"',
        'report = "r.jsonl"',
        'engine = ["face=e"]',
        'segment = "10min"',
        'retain = "20GB"',
        'spool = "500MB"',
    ]
    config = read(tmp_path, STREAM.replace('"front.mkv"', '["front/", "rtsp://server/1"]') + "\n".join(given))
    settings = config.streams["front"].settings
    again = RunSettings.model_validate(settings.model_dump(mode="json", exclude_unset=True))
    assert again == settings
    assert again.model_fields_set == settings.model_fields_set


def test_secrets_are_used_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("schluessel\n")
    text = """
    [streams.front]
    input = "rtsp://me:${PASSWORD}@camera/${PASSWORD}"
    output = ["rtmp://me:offen@server/live/${file:key}", "gst:rtspclientsink user-pw=offen location=rtsp://a"]
    """
    config = read(tmp_path, text)
    front = config.streams["front"]
    assert front.source.text == "rtsp://me:geheim99@camera/geheim99"
    assert front.sinks[0].text == "rtmp://me:offen@server/live/schluessel"
    assert front.source.shown == "rtsp://***@camera/${PASSWORD}"
    assert front.sinks[0].shown == "rtmp://***@server/live/${file:key}"
    assert front.sinks[1].shown == "gst:rtspclientsink user-pw=*** location=rtsp://a"
    shown = repr(config) + config.secrets.hide("geheim99 schluessel rtmp://me:offen@server")
    assert not any(secret in shown for secret in ("geheim99", "offen", "schluessel"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no \\[streams.NAME\\] table"),
        ("x = ", "is not valid TOML"),
        ("[stream.a]\n" + STREAM, "unknown key 'stream': did you mean 'streams'"),
        ("[streams.Front]\ninput='a'\noutput='b'", "'Front' is no stream's name"),
        (f"[streams.{'a' * 65}]\ninput='a'\noutput='b'", "is no stream's name"),
        ("[streams.'../x']\ninput='a'\noutput='b'", "is no stream's name"),
        ("[streams]\nfront = 'a'", "front is not a table"),
        ("streams = 3", "streams is not a table"),
        ("defaults = 3\n" + STREAM, "defaults is not a table"),
        ("[streams.a]\noutput='b'", "input must be a file or a URL, got None"),
        ("[streams.a]\ninput='a'", "output must be a file or a URL, or a list of them, got None"),
        ("[streams.a]\ninput='a'\noutput=[]", "output must be"),
        ("[streams.a]\ninput='a'\noutput=['b', 3]", "output must be"),
        ("[streams.a]\ninput='a'\noutput=['b', 'b']", "output names the same place twice"),
        ("[streams.a]\ninput=['a', 'c']\noutput='b'", "a stream has one"),
        ("[streams.a]\ninput='-'\noutput='b'", "standard input or output"),
        ("[streams.a]\ninput='rstp://camera/1'\noutput='b'", "rstp://camera/1 cannot be read.*rtsp"),
        ("[streams.a]\ninput='rtsp://${PASWORD}@c'\noutput='b'", "\\[streams.a\\].*PASWORD.*not there"),
        (STREAM + "hodl = 3", "unknown key 'hodl': did you mean 'hold'"),
        (STREAM + "hold = 'long'", "hold"),
        (STREAM + "[defaults]\npresset = 'faces'", "did you mean 'preset'"),
        (STREAM + "[defaults]\ninput = 'a'", "unknown setting 'input'"),
        (STREAM + "[supervisor]\nsilense = 3", "did you mean 'silence'"),
        (STREAM + "[supervisor]\nsilence = 0", "silence: Input should be greater than 0, got 0"),
        (STREAM + "[status]\nport = 99999", "port: "),
        (STREAM + "[status]\ntoken-file = 'none'", "cannot read the token file"),
        (STREAM + "[status]\ntoken_file = 'short'", "has 3 characters; expected 16"),
        (STREAM + "[streams.b]\ninput='a'\noutput='x/../front.mkv'\noverwrite=true", "both write to x/../front.mkv"),
        (STREAM + "[streams.b]\ninput='a'\noutput='b/'\n[defaults]\nreport='r.jsonl'", "front and b both .*r.jsonl"),
        (PORTS.format("8554"), "a and b both listen on port 8554: rtsp-server://\\*\\*\\*@:8554/b; give each"),
        (PORTS.format("8554").replace(":8554/b", "192.168.0.2/b"), "a and b both listen on port 8554"),
        (TWO.format("rtsp://one@server/x", "rtsp://two@SERVER:554/x/"), "a and b both write to rtsp://"),
        (TWO.format("udp://239.0.0.1:5000?ttl=1", "udp://239.0.0.1:5000"), "a and b both write to udp://"),
        (TWO.format("rec", "./rec/") + "[defaults]\nsegment='1min'", "a and b both write to ./rec/"),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc")
    with pytest.raises(UsageError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith((str(tmp_path), "the token", "cannot read"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["'rstp://a:${PASSWORD}@b'", "'rtsp://${PASSWORD}:x'", "'nn://${PASSWORD}'", "['rtsp://a:geheim99@b', 3]"],
)
def test_an_error_shows_no_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, f"[streams.a]\ninput={text}\noutput='b'")
    assert "geheim99" not in str(raised.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the config file"):
        read_serve_config(tmp_path / "none.toml")


def test_no_stream_is_fine_where_some_can_be_added(tmp_path: Path) -> None:
    assert read(tmp_path, "[status]\nport = 0").streams == {}


def test_who_adds_a_stream_from_outside_cannot_read_the_environment(tmp_path: Path) -> None:
    values = {"input": "rtsp://camera/1", "output": "udp://somebody:9/${PASSWORD}"}
    with pytest.raises(UsageError, match="only the config file"):
        make_stream("a", values, {}, tmp_path, secrets=None, origin="stream 'a'")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("segment = '1min'", "--segment and --retain are for recordings"),
        ("spool = '1MB'", "--spool is for servers"),
        ("start = 3.0", "--start and --end are for files"),
        ("contact_sheet = 'sheet.jpg'", "must end in .png"),
        ("output = 'front.mkv'", r"\[streams.front\].*front.mkv is a single file"),
        ("report = 'report.json'", r"\[streams.front\].*report.json is written once"),
    ],
)
def test_what_a_run_would_refuse_is_refused_here(setting: str, message: str, tmp_path: Path) -> None:
    stream = '[streams.front]\ninput = "rtsp://camera/1"\n'
    lasts = setting.startswith(("output", "report"))
    output = "" if setting.startswith("output") else "output = 'udp://239.0.0.1:5000'\n"
    with pytest.raises(UsageError, match=message):
        read(tmp_path, f"{stream}{output}{setting}\noverwrite = {str(not lasts).lower()}")


def test_two_streams_may_share_a_server(tmp_path: Path) -> None:
    for ends in (
        ("rtsp://server/a", "rtsp://server/b"),
        ("rtsp-server://:8554/a", "rtsp-server://:8555/a"),
        ("srt://server:9000?streamid=a", "srt://server:9000?streamid=b"),
        ("udp://239.0.0.1:5000", "udp://239.0.0.1:5001"),
        ("live/a.m3u8", "live/b.m3u8"),
    ):
        assert len(read(tmp_path, TWO.format(*ends)).streams) == 2


@pytest.mark.parametrize(
    ("silence", "warned"),
    [(5, ["front (7 s)", "silence = 5"]), (7, []), (30, [])],
    ids=["shorter", "as long", "longer"],
)
def test_who_would_kill_honest_workers_is_warned(silence: float, warned: list[str], tmp_path: Path) -> None:
    config = read(tmp_path, STREAM + f"deadline = 7\n[supervisor]\nsilence = {silence}")
    warning = haste(config.streams.values(), config.supervisor)
    assert (warning is not None) == bool(warned)
    assert all(text in str(warning) for text in warned)
