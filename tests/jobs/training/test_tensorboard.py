"""The event file of a training."""

from contextlib import closing

import numpy as np

from jobs.training.tensorboard import EventLog, confusion_picture


def test_a_training_that_starts_anew_leaves_no_curve_of_an_earlier_one(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def logged(loss, fresh):
        with closing(EventLog(tmp_path, fresh)) as log:
            log.scalars(1, {"loss": loss})
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [round(event.value, 1) for event in events.Scalars("loss")]

    (tmp_path / "notes.txt").touch()
    assert logged(0.5, fresh=True) == [0.5]
    assert logged(0.9, fresh=False) == [0.5, 0.9]
    assert logged(0.1, fresh=True) == [0.1]
    assert (tmp_path / "notes.txt").exists()


def test_confusion_is_darkest_where_most_of_a_row_are():
    picture = confusion_picture(np.array([[8, 1, 1], [0, 10, 0], [3, 3, 4]]))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.min() < 60
    assert picture.max() == 255
