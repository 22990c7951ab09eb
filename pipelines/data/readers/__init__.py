"""One reader per annotation source; each turns files into ``annotations.Annotated``."""
