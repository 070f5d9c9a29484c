import pytest
from shiftbench.core.errors import (
    InputError,
    RunFailedError,
    first_line,
    last_line,
    one_line,
    whole_text,
)

REMOTE = """ray::WarmWorker.fit() (pid=7)
Traceback (most recent call last):
  File "training.py", line 3, in run
    raise ValueError("one\\ntwo")
ValueError: the loss is too far from here
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(REMOTE), "ValueError: the loss is too far from here"),
        (RunFailedError(REMOTE), "ValueError: the loss is too far from here"),
        (RuntimeError(f"{REMOTE}  at 7\n"), "ValueError: the loss is too far from here at 7"),
        (RuntimeError(f"{REMOTE}\nthen\n{REMOTE}"), "ValueError: the loss is too far from here"),
        (RuntimeError("no\nmemory"), "RuntimeError: no memory"),
        (RunFailedError("the loss is NaN"), "the loss is NaN"),
        (InputError("x.yaml: no"), "x.yaml: no"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_the_last_line_of_a_traceback_is_what_happened(error, line):
    assert last_line(error) == line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (ValueError(" one\n two\r\n"), "one two"),
        (ValueError(" \n"), "ValueError"),
        (OSError(), "OSError"),
        ("a\n b", "a b"),
        ("", ""),
    ],
)
def test_a_message_is_on_one_line_and_never_empty(said, line):
    assert one_line(said) == line


def test_a_line_has_an_end():
    assert len(first_line(RuntimeError("x" * 1000))) == 500
    assert len(last_line(RuntimeError(f"{REMOTE}ValueError: {'x' * 1000}"))) == 500


def test_the_whole_text_has_the_errors_that_led_to_it():
    try:
        try:
            {}["here"]
        except KeyError as error:
            raise RunFailedError("not found") from error
    except RunFailedError as error:
        text = whole_text(error)
    assert '{}["here"]' in text and "KeyError: 'here'" in text
    assert text.rstrip().endswith("RunFailedError: not found")


def test_the_whole_text_has_no_colours():
    assert whole_text(RuntimeError("\x1b[36mray::fit\x1b[39m")) == "RuntimeError: ray::fit\n"
