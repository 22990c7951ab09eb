"""Arrays in, pictures out. Imports no other room."""
