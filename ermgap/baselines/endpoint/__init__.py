"""OpenAI-compatible endpoints that hear audio: utterances go in, kept answers and their cost come out."""
