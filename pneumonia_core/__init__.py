"""X-rays, networks, metrics and the results table: plain Python, without a cluster.

The rooms, in import order: a room may import what is above it, `lint-imports` enforces it.

    errors  findings           what can go wrong; the three classes
    calibration  domain  gates log-odds to probabilities; what is unlike the training data; what holds a run
    drift                      how far the scores of a run are from those before
    system                     this machine and its processes
    storage                    where bytes are: locations, files, byte ranges, locks
    imaging                    bytes of any format to one grey uint8 square
    archives                   what an archive holds: listing it, reading one image of it
    networks  bundles          building a ResNet; a model on disk and the engines that run it
    datasets  evaluation       labelled images and audits; how good scores are, with intervals
    results                    the Delta table of scores
    runs  reports              the folder of one scoring run; HTML pages and the model card
    scoring                    one chunk of images to rows
    training                   recipe, step, checkpoint, release as a bundle
    phantoms                   synthetic X-rays for the demo and the tests
"""

from pneumonia_core.system.usage_data import send_no_usage_data

__version__ = "0.1.0"

# Here, because it must be done before anything imports OpenVINO.
send_no_usage_data()
