"""The interactive part of the report: a sweep goes in, one HTML file comes out."""
