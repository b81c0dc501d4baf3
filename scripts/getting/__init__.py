"""Getting data sets: where they are, how they are downloaded, checked and laid out."""
