"""What a run is worth, and how it leaves: evaluation, export, model card, publishing, loading back."""
