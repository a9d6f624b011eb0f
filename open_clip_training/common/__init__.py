"""What mining, adaptation, pretraining and ablation share."""
