"""``python -m higan.cli``."""

from higan.cli import main

if __name__ == "__main__":
    main()
