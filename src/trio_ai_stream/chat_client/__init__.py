"""`trio-ai-stream chat` and `pstree`: commands that ask a running server."""
