"""fsslib: the library behind the notebooks on cross-domain few-shot semantic segmentation. Use it as `import fsslib as
fss`.

The names a notebook needs are here. They load when first used, so that a command line or a cluster job pays for nothing
it does not call: neither torch nor plotting is imported by `import fsslib`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "episodes": "Episode EpisodeManifest EpisodeRow EpisodeSet EpisodeStream LabelledImages TaggedImages VOID",
    "protocols": "PROTOCOLS Protocol",
    "metrics": "FewShotMeter Score SegmentationMeter SegmentationScore",
    "blocks.adversarial": "ImageDiscriminator PixelDiscriminator class_balance_map distillation_loss domain_loss "
    "focal_loss gradient_reversal pixadv_loss pixel_difficulty_map select_sources",
    "blocks.backbones": "build_backbone",
    "blocks.contrast": "prototype_contrastive_loss prototype_segmentation_loss",
    "blocks.correlation": "CentrePivotBlock hypercorrelation",
    "blocks.deeplab": "AtrousHead DeepLab",
    "blocks.memory": "MetaMemory feature_statistics orthogonality_loss restyle",
    "blocks.pooling": "background_mask grid_weights masked_average_pooling merge_shots",
    "blocks.similarity": "cosine_similarity_map merge_ways prototype_logits",
    "blocks.stylise": "fourier_stylise photometric_twin",
    "methods": "METHODS build_method",
    "methods.base": "BinaryMethod Method Prediction",
    "methods.hsnet": "HSNet",
    "methods.panet": "PANet",
    "methods.pfenet": "PFENet",
    "methods.prototype": "PrototypeNetwork",
    "methods.released": "load_released",
    "methods.rtd": "RememberTheDifference",
    "methods.sg_one": "SGOne",
    "methods.pixda": "PixDA",
    "data": "open_images open_task",
    "data.folder": "open_folder",
    "data.tasks": "LeakageError check_leakage",
    "data.toyworld": "ToyWorld",
    "data.toyworld.streets": "Streets",
    "training.recipe": "Recipe",
    "training.fit": "fit",
    "training.evaluate": "evaluate evaluate_best",
    "training.segment": "segment",
    "training.checkpoint": "load_checkpoint save_checkpoint",
    "teaching": "lesson",
    "reproduction.statistics": "holm paired_difference student_interval",
    "reproduction.config": "RunConfig",
    "reproduction.experiment": "Experiment",
    "reproduction.run": "run",
    "paths": "data_root project_root",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
_MODULES = {"exercises": "teaching.exercises", "plots": "teaching.plots", "widgets": "teaching.widgets"}

__all__ = [*_MODULE_OF, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fsslib.{_MODULES[name]}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"fsslib.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"fsslib has no {name!r}; its names are listed in fsslib.__all__.")


def __dir__() -> list[str]:
    return sorted(__all__)
