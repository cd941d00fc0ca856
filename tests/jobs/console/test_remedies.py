"""Remedies: each has words of the command line, and core names no option."""

import re

from jobs.console.remedies import REMEDIES, error_line
from pneumonia_core.errors import InvalidInput, Remedy


def test_every_remedy_has_words_of_the_command_line():
    assert REMEDIES.keys() == set(Remedy)


def test_core_remedies_name_no_option():
    assert not [remedy for remedy in Remedy if re.search(r"--\w", remedy)]


def test_error_line_ends_with_the_remedy_and_its_option():
    error = InvalidInput("the table is another program's.", Remedy.OTHER_RESULTS)
    assert error_line(error) == "the table is another program's. Give another --results."
    assert "--" not in str(error)
