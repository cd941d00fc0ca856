"""Modules that the tests of ChildPool run in a child process."""
