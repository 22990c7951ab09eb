"""From crops and users' files to joints."""
