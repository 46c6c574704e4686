import pytest

from engines.errors import UsageError
from export.starter.detector_export import BundleOptions
from export.starter.detector_training import DetectorOptions
from export.starter.generator_training import TrainingConfig
from export.starter.settings import with_settings


def test_settings_change_what_they_name_and_nothing_else() -> None:
    config = TrainingConfig()
    words = ["losses.r1=0", "batch=3", "network.widths=8,16", "losses.r1_masked=false", "augment.dilation=1,2.5"]
    found = with_settings(config, words)
    assert (found.losses.r1, found.losses.r1_masked, found.batch) == (0.0, False, 3)
    assert found.network.widths == (8, 16)
    assert found.augment.dilation == (1.0, 2.5)
    assert found.discriminator == config.discriminator
    assert found.losses.epsilon == config.losses.epsilon
    assert with_settings(config, []) == config


def test_settings_are_words_too_and_fit_every_config() -> None:
    found = with_settings(DetectorOptions(), ["device=cuda", "spec.widths=8,12,16,24,32", "augmentation.mirror=false"])
    assert (found.device, found.spec.widths, found.augmentation.mirror) == ("cuda", (8, 12, 16, 24, 32), False)
    assert with_settings(BundleOptions(), ["name=mine", "view=96,160"]) == BundleOptions(name="mine", view=(96, 160))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch", "name=value"),
        ("bach=3", "no setting 'bach'"),
        ("losses.r2=3", "no setting 'losses.r2'"),
        ("losses=3", "one by one"),
        ("batch.size=3", "no part"),
        ("batch=2.5", "expected int"),
        ("bfloat16=yes", "expected bool"),
        ("network.widths=8,wide", "expected int, such as"),
    ],
)
def test_settings_that_do_not_fit_are_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_settings(TrainingConfig(), [word])
