"""Shared by every test: one thread per process, so that workers do not fight over cores; a device; the command line."""

import contextlib
import sys

import pytest
import torch

import checks
from elsewhere import register

torch.set_num_threads(1)
register()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores, as xdist counts them: tests of servers, browsers and clusters wait."""
    return 1 + (yield)


def pytest_runtest_setup():
    checks.again()


@pytest.fixture
def no_file_above():
    """A context in which no file may grow beyond so many bytes: a full disk, in the middle of writing."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def higan(monkeypatch, capsys):
    """Runs a line; returns exit status and what was printed, line breaks of the narrow terminal undone.

    Some verbs choose how many threads torch takes, which is put back.
    """
    from higan import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["higan", *map(str, words)])
        code, threads = 0, torch.get_num_threads()
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            torch.set_num_threads(threads)
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return run
