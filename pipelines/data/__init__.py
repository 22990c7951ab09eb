"""Annotations, records, tf.data, and what the device makes of a batch. Imports no other room."""
