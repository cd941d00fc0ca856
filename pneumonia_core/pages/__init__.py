"""HTML pages and the model card: what people read about a model and a run."""

from pneumonia_core.pages.card import model_card
from pneumonia_core.pages.evaluation import evaluation_page
from pneumonia_core.pages.run import run_page

__all__ = ["evaluation_page", "model_card", "run_page"]
