"""Vocabularies, data sets and mappers."""
