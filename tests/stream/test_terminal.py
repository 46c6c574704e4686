from __future__ import annotations

from rich.console import Console

from stream.terminal import error_console, say, table, visible


def shown(width: int, rows: list[tuple[str, ...]]) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table("A title [bold]", ("name", "text"), rows))
    return capture.get()


def test_brackets_are_no_markup() -> None:
    text = shown(80, [("[red]one", "[/nothing]")])
    assert "A title [bold]" in text
    assert "[red]one" in text
    assert "[/nothing]" in text


def test_what_is_too_long_is_folded_and_never_cut() -> None:
    digest = "0123456789abcdef" * 4
    text = shown(40, [("", digest)])
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    # Nothing but the hash has digits or letters behind the head of the table.
    body = text[text.index("text") + len("text") :]
    assert "".join(c for c in body if c.isalnum()) == digest


def test_an_error_is_one_line() -> None:
    console = error_console()
    with console.capture() as capture:
        say(console, "two\nlines [with] brackets " + "and more " * 40)
    assert capture.get().count("\n") == 1
    assert capture.get().startswith("standin: two lines [with] brackets")


def test_control_characters_are_read_and_not_obeyed() -> None:
    assert visible("a\x1b[2J\n\x7f\x9b0m\0.mp4") == r"a\x1b[2J\x0a\x7f\x9b0m\x00.mp4"
    assert visible("Straße [1]\xa0字.mp4") == "Straße [1]\xa0字.mp4"
    console = error_console()
    with console.capture() as capture:
        say(console, "one\n\x1b]0;title\x07two")
    assert capture.get() == "standin: one \\x1b]0;title\\x07two\n"
