"""WebSocket: notifications of the topics that a client asks for, and what it sends, over one socket."""
