"""What a training does on its workers: the loop over epochs and steps, how it starts, and its batches."""
