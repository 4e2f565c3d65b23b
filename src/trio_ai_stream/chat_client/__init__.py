"""`trio-ai-stream chat`: a terminal client for any server that speaks `POST /chat`."""
