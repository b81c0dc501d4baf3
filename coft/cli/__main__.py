"""`python -m coft.cli`: the command `coft`, also where it is not installed."""

from coft.cli.main import run

if __name__ == "__main__":
    run()
