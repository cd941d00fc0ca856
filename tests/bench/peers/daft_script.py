"""Daft's example of batch inference on images, with a Keras model.

usage: daft_script.py MODEL.keras SIZE IMAGES OUT
"""

import sys

import daft
import numpy as np
from daft import DataType, Series, col

model_path, size, images, out = sys.argv[1:]


@daft.cls(max_concurrency=1)
class Predictor:
    def __init__(self, path: str):
        import keras

        self.model = keras.saving.load_model(path, compile=False)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=32)
    def predict(self, images: Series):
        batch = np.stack([np.asarray(image)[..., 0] for image in images.to_pylist()])
        return list(self.model.predict_on_batch(batch)["probabilities"])


predictor = Predictor(model_path)
df = daft.from_glob_path(images + "/*.jpeg")
df = df.with_column("image", col("path").download().decode_image(mode="L").resize(int(size), int(size)))
df = df.with_column("scores", predictor.predict(col("image")))
df = df.select("path", *(col("scores").get(each).alias(f"p{each}") for each in range(3)))
df.write_parquet(out)
