"""`python -m hub` is `hub`."""

from hub.cli import command

if __name__ == "__main__":
    command()
