"""Encoders (BERT and its kin): sentence vectors, classification, masked words, answers in a text."""
