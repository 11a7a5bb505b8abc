"""Providers: the protocol of an answering model, and its implementations."""
