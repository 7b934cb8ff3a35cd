"""``higan``, and ``python -m higan``: the command line, which loads torch first."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Entry point of the installed program: loads the command line and hands over."""
    python = signal.default_int_handler
    waiting = signal.getsignal(signal.SIGINT) is python  # What a shell keeps in the background shall not hear of it.
    if waiting:
        # Nothing is begun yet: Ctrl-C ends the program at once, without an account of what was being imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from higan.cli import main as run

    if waiting:
        signal.signal(signal.SIGINT, python)
    try:
        run()
    except KeyboardInterrupt:  # before the first verb, or after the last
        sys.exit(130)


if __name__ == "__main__":
    main()
