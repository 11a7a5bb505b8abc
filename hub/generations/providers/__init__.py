"""Providers: the protocol of what answers a prompt, and its implementations."""
