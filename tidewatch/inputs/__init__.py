"""What comes in: the generator of a network's events, the replay of labelled data, their labels and inventory."""
