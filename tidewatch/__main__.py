"""`python -m tidewatch`: the command line."""

from tidewatch.cli import main

if __name__ == "__main__":
    main()
