"""The SQLite log: this side of it in `log.py`, the processes that keep the file in `worker/`."""
