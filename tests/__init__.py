"""Tests: the same tree as the code; what several files share is in helpers/."""
