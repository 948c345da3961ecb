"""Engines: what runs a checkpoint. One Protocol for each kind of model, a folder for each family of models.

Nothing above an engine knows which one ran. An engine splits its work into *steps* (one forward pass each) and hands
every step to `compute`, which runs it on the compute lane in fair order between visitors, and raises `Cancelled`
instead when the visitor has gone. So a request stops within one step, and a long generation does not hold up a short
classification.
"""
