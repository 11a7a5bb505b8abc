"""The processes that keep a SQLite log, so that the event loop never waits for a disk.

They share nothing with the rest of the hub but this folder, and need nothing but the standard library: they start
fast, have an interpreter lock of their own, inherit no socket, and end with their input, so that neither can outlive
its parent. Both sides speak length-prefixed `marshal` over a pipe; each request gets one answer, in order.
"""
