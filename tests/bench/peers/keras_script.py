"""What one person writes first: tf.data, Keras' predict and pandas, in one process.

usage: keras_script.py MODEL.keras SIZE IMAGES OUT
"""

import sys
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

model_path, size, images, out = sys.argv[1:]
model = keras.saving.load_model(model_path, compile=False)
paths = sorted(str(path) for path in Path(images).glob("*.jpeg"))


def load(path):
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=1)
    image = tf.image.resize(image, (int(size), int(size)))
    return tf.cast(tf.round(image), tf.uint8)[..., 0]


data = tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=tf.data.AUTOTUNE)
scores = model.predict(data.batch(32).prefetch(tf.data.AUTOTUNE), verbose=0)["probabilities"]
Path(out).mkdir()
table = pd.DataFrame({"path": paths, "p0": scores[:, 0], "p1": scores[:, 1], "p2": scores[:, 2]})
table.to_parquet(Path(out) / "scores.parquet")
