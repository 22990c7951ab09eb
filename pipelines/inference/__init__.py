"""Joints of crops, photographs and videos."""
