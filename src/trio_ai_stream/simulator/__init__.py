"""An OpenRouter stand-in over a real socket, with faults on request and a ledger."""
