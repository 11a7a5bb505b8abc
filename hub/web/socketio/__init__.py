"""Socket.IO: the same conversation as over a WebSocket, for those who have clients of Socket.IO."""
