"""trio-ai-stream: a chat-streaming server in which every stream lives in a nursery."""

from __future__ import annotations
