"""Batch inference as the documentation of Ray Data writes it, with a Keras model.

usage: ray_data_docs.py MODEL.keras SIZE IMAGES OUT
"""

import sys

import ray

model_path, size, images, out = sys.argv[1:]


class Predictor:
    def __init__(self):
        import keras

        self.model = keras.saving.load_model(model_path, compile=False)

    def __call__(self, batch):
        scores = self.model.predict_on_batch(batch["image"])["probabilities"]
        return {"path": batch["path"], "p0": scores[:, 0], "p1": scores[:, 1], "p2": scores[:, 2]}


ray.init(address="local", include_dashboard=False, log_to_driver=False)
ds = ray.data.read_images(images, size=(int(size), int(size)), mode="L", include_paths=True)
# One actor: TensorFlow in it computes on all cores.
ds = ds.map_batches(Predictor, compute=ray.data.ActorPoolStrategy(size=1), batch_size=32, num_cpus=1)
ds.write_parquet(out)
