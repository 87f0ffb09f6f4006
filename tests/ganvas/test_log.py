import io
import logging

import pytest

from ganvas.console import run_command
from ganvas.log import logger, progress_bar, shown_log, track


def test_a_command_line_shows_messages_on_standard_error(capsys):
    def command(_):
        logger.info("50%% of [bold] %s", "images")
        logger.debug("hidden")
        print("result")
        return 0

    assert run_command("tool", command, []) == 0
    assert capsys.readouterr() == ("result\n", "50% of [bold] images\n")


def test_a_caller_in_python_sees_only_warnings_and_gets_all_through_logging(capsys, caplog):
    logger.info("nothing")
    assert capsys.readouterr() == ("", "")
    caplog.set_level(logging.INFO, "ganvas")
    logger.info("something")
    assert caplog.messages == ["something"]


def test_handlers_do_not_accumulate(capsys):
    before = logger.handlers[:], logger.level
    with shown_log(), shown_log():
        logger.info("once")
    assert capsys.readouterr().err == "once\n"
    assert (logger.handlers, logger.level) == before


def test_handlers_are_removed_when_a_command_fails():
    with pytest.raises(ZeroDivisionError), shown_log():
        raise ZeroDivisionError
    assert not logger.handlers


def test_bars_are_not_drawn_without_a_terminal(capsys):
    assert list(track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("level", "is_shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_bars_are_drawn_on_a_terminal(monkeypatch, level, is_shown):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(logger, "level", level)
    logger._cache.clear()
    assert progress_bar().disable is not is_shown
    list(track("ab", "reading", 2))
    assert ("\x1b" in terminal.getvalue()) is is_shown
    logger._cache.clear()
