"""A job's log on its way to the terminal."""

from cluster.follow import JobLog

LINES = "Running\n{looks like json\nscoring\n" + '{"state": "committed"}\n'


def test_json_line_is_held_back_only_while_it_may_be_the_last(capsys):
    log = JobLog()
    log.show(LINES, 0)
    assert capsys.readouterr().out == "Running\n{looks like json\nscoring\n"
    assert log.last_line() == '{"state": "committed"}'
    log.show("goodbye\n", len(LINES))
    assert capsys.readouterr().out == '{"state": "committed"}\ngoodbye\n'
    assert log.last_line() == ""


def test_log_that_is_sent_again_is_shown_once(capsys):
    log = JobLog()
    for end in (5, 12, 30, len(LINES)):  # the connection breaks, and each time it starts from the beginning
        for start in range(0, end, 4):
            log.show(LINES[start : min(start + 4, end)], start)
    assert capsys.readouterr().out == "Running\n{looks like json\nscoring\n"
    assert log.last_line() == '{"state": "committed"}'
