"""The embedded default's people: drawn, painted, photographed."""
