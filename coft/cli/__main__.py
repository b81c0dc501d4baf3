"""`python -m coft.cli`: the command `coft`, which also works where the package is not installed."""

from coft.cli.main import run

if __name__ == "__main__":
    run()
