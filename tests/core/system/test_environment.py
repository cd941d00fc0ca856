import pytest

from pneumonia_core.system.environment import gpu_training_precision


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([(6, 0)], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(7, 5), (8, 6)], "mixed_float16"),
        ([(8, 0), (9, 0)], "mixed_bfloat16"),
    ],
)
def test_gpus_train_in_what_the_oldest_of_them_multiplies_fast(capabilities, precision):
    assert gpu_training_precision(capabilities) == precision
