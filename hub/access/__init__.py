"""Access: who may see what. Pure rules, no sockets."""
