"""Max-Ent pooling's own arithmetic for each family: weights that windows share where they hold."""
