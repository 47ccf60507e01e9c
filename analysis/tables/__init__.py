"""Tables: a sweep or a benchmark goes in; text, CSV, LaTeX, HTML and Markdown come out."""
