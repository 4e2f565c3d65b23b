"""What the guard's tests share: an application, servers and raw clients."""
