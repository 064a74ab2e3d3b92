from keras_mnm.models.model import Model
from keras_mnm.models.presets import from_preset, list_presets, save_to_preset
from keras_mnm.models.task_models import token_model, vector_model

__all__ = ["Model", "from_preset", "list_presets", "save_to_preset", "token_model", "vector_model"]
