"""Configuration, training and evaluation over detectron2."""
