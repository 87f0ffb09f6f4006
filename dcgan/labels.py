"""How the metrics of ``dcgan evaluate`` are shown. Free of torch, since a report needs no network."""

from ganvas.evaluation.labels import PAIRED_LABELS, MetricLabel
from ganvas.evaluation.names import OF_SETS

LABELS = {key: PAIRED_LABELS[key] for key in OF_SETS.values()} | {
    "frechet_distance": MetricLabel("Fréchet distance", "lower", 3),
    "kernel_distance": MetricLabel("Kernel distance", "lower", 4),
    "precision": MetricLabel("Precision", "higher", 3),
    "recall": MetricLabel("Recall", "higher", 3),
    "density": MetricLabel("Density", decimals=3),  # more than 1 where images crowd together
    "coverage": MetricLabel("Coverage", "higher", 3),
    "class_coverage": MetricLabel("Classes drawn", "higher", 0),
    "label_entropy": MetricLabel("Entropy of the classes, bits", "higher", 3),
    "mean_confidence": MetricLabel("Mean confidence of the classifier", decimals=3),
    "label_fidelity": MetricLabel("Drawn as asked", "higher", 3),
    "within_class_diversity": MetricLabel("Diversity within a class, relative to real images", decimals=3),
    "near_copies": MetricLabel("Near-copies of training images", "lower", 3),
    "speckle": MetricLabel("Stray bright pixels, relative to real images", "lower", 2),
    "checkerboard_energy": MetricLabel("Checkerboard energy", decimals=5),
}
