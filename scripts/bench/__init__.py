"""What a step of Phase I costs, with the text tower run in three ways (`bench.sh`)."""
