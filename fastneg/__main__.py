"""``python -m fastneg`` is the command line."""

from fastneg.cli import main

if __name__ == "__main__":
    main()
