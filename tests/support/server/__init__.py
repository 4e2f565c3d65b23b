"""What the server's tests share: an application, servers and raw clients."""
