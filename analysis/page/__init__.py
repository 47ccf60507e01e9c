"""The interactive part of the report: a sweep goes in, data and scripts of one HTML file come out."""
