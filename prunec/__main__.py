"""`python -m prunec` is the `prunec` command."""

from prunec.cli import main

if __name__ == "__main__":
    main()
