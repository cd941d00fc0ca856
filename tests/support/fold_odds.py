"""What networks of folds say of images, computed from whole arrays."""

import numpy as np

from pneumonia_core.calibration import log_odds
from pneumonia_core.networks.prefilter import smooth


def odds_of_one_array(members, images, folds):
    """The log-odds with the mirror image, each member's images at once."""
    odds = np.zeros((len(images), 2))
    for number, member in enumerate(members):
        some = images[folds == number]
        views = [
            [
                member.predict_on_batch(np.asarray(smooth(view[start : start + 32])))
                for start in range(0, len(view), 32)
            ]
            for view in (some, some[:, :, ::-1])
        ]
        odds[folds == number] = sum(log_odds(np.concatenate(logits)) for logits in views) / 2
    return odds
