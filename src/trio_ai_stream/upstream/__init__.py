"""OpenRouter over httpx: request, decoder, transport and error table."""
