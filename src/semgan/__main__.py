"""``python -m semgan`` is ``semgan``."""

from semgan.cli import main

if __name__ == "__main__":
    main()
