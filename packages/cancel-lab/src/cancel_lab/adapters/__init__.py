"""One adapter per server: how to start it, where to send a chat, what it can do."""
