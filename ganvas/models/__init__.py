"""The model folder: its format, its card, and the Hugging Face hub."""
