"""What a released bundle tells of itself."""

from pneumonia_core import __version__


def test_model_card_names_the_model_and_the_version_that_made_it(guarded_bundle):
    card = (guarded_bundle.path / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# Model card: resnet18 {guarded_bundle.model_id}\n")
    assert f"Made with pneumonia-scoring {__version__}." in card
