"""Trains a PyTorch network on the UCI digits, with AdamW, a learning-rate schedule and dropout.

    python pytorch.py --data digits.csv --store /tmp/digits-torch --steps 400

Stop it at any moment, also with `kill -9`, and start it again: it goes on from the newest checkpoint
and ends with the same bits as a run that nobody stopped.
"""
