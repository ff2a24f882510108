"""replimat: re-runs the experiments of AI-for-materials papers and judges every reported number."""

__version__ = "0.1.0"
