"""Foreign text made fit to be shown: every line of a log, a terminal or a page goes through here."""


def printable(text: str) -> str:
    """The text on one line, its line breaks, control and direction characters escaped.

    So a file name can neither forge a line of the log, nor drive the terminal, nor disguise itself.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
