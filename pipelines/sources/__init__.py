"""One reader per annotation source; each turns files into ``pipelines.people.Annotated``."""
