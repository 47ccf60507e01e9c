"""OpenAI-compatible endpoints that take audio, as systems; every answer is kept in a file."""
