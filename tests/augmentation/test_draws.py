import numpy as np

from nnunet_ext.augmentation.draws import drawn_generator


def test_what_seeds_numpy_seeds_the_draws_which_all_differ():
    np.random.seed(0)
    first = [drawn_generator().random() for _ in range(1000)]
    np.random.seed(0)
    assert [drawn_generator().random() for _ in range(1000)] == first
    assert len(set(first)) == 1000
