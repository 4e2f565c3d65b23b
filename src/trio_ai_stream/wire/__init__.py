"""What crosses the sockets: events, frames, requests and errors; pure."""
