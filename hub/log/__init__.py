"""The log: the append-only, totally ordered history. One protocol (`log.py`), and its homes: memory, SQLite, Redis."""
