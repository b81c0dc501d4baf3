"""`python -m coft.command`: the command, also where it is not installed."""

from coft.command.main import run

if __name__ == "__main__":
    run()
