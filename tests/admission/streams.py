"""Live streams as the directories see them, without a server around them."""

from __future__ import annotations

from trio_ai_stream.admission.directory import Entry


class Streams:
    """Some streams of one process: id to owner; cancelled ones are gone."""

    def __init__(self, name: str, **owners: str) -> None:
        self.name = name
        self.owners = owners
        self.broken = False

    def has_generation(self, generation_id: str, owner: str | None) -> bool:
        return owner in (None, self.owners.get(generation_id.removeprefix("gen-"), ""))

    async def snapshot(self, owner: str | None) -> list[Entry]:
        return [
            {"id": request_id, "at": self.name}
            for request_id, by in self.owners.items()
            if owner in (None, by)
        ]

    def cancel(self, request_id: str, owner: str | None) -> Entry | None:
        if owner not in (None, self.owners.get(request_id)):
            return None
        if self.owners.pop(request_id, None) is None:
            return None
        return {"id": request_id, "cancelled_at": self.name}
