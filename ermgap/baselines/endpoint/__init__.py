"""OpenAI-compatible endpoints that hear audio: utterances go in, kept answers come out."""
