"""`python -m hub` is `hub`."""

from hub.cli.entry import command

if __name__ == "__main__":
    command()
