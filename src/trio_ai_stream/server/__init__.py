"""An HTTP server under Hypercorn's configuration, sockets, processes and lifespan."""
