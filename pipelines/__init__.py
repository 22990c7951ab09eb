"""How data and state move: annotations, records, tf.data, training, evaluation."""
