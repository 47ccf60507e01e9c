"""Pictures: the front and what surrounds it go in, PNG, SVG and PDF come out (matplotlib)."""
