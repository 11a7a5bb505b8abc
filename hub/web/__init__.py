"""The edges: aiohttp routes, responses and streams. The only HTTP code of the hub."""
